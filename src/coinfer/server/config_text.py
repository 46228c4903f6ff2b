"""Config text: parses a `config.pbtxt` and finds what is unknown or not followed here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any

from google.protobuf import text_format

from coinfer.errors import ConfigurationError
from coinfer.server.messages import INFERENCE
from coinfer.server.text_fields import TextField, text_fields

__all__ = ["parsed"]

_MOST_SHOWN = 5

_NOT_FOLLOWED = {
    "batch_input": "it makes inputs out of a batch, which no graph here expects",
    "batch_output": "it cuts outputs out of a batch, which is done by the first axis",
    "cc_model_filenames": "it chooses a file by the kind of GPU",
    "ensemble_scheduling": "pipelines of models are not read from here",
    "instance_group.gpus": "planning chooses the processors",
    "instance_group.host_policy": "planning chooses the processors",
    "instance_group.passive": "all instances serve",
    "instance_group.profile": "it is for TensorRT",
    "instance_group.rate_limiter": "the scheduling policy decides what runs next",
    "instance_group.secondary_devices": "planning chooses the processors",
    "input.reshape": "the graph takes the shape that it states",
    "metric_tags": "metrics have the labels model and version",
    "model_metrics": "metrics have the buckets that they have",
    "model_operations": "no libraries are loaded for a model",
    "model_repository_agents": "no agents are run for a model",
    "model_warmup.inputs.value.input_data_file": "inputs of a warm-up are zero_data or random_data",
    "optimization": "planning measures what is fastest",
    "output.reshape": "the graph gives the shape that it states",
    "parameters": "planning chooses threads, precision and libraries",
    "dynamic_batching.priority_queue_policy": "default_queue_policy is for all levels",
    "response_cache": "answers are not cached",
    "runtime": "name the backend",
    "sequence_batching": "requests have no state here",
}
"""Fields of Triton that are not followed, and why."""

_NO = ("false", "False", "f", "0")
_FOLLOWED_IF = {
    "dynamic_batching.preserve_ordering": (_NO, "answers come when they are ready"),
    "input.allow_ragged_batch": (_NO, "the samples of a batch have equal sizes"),
    "input.is_non_linear_format_io": (_NO, "tensors are plain arrays"),
    "input.is_shape_tensor": (_NO, "it is for TensorRT"),
    "instance_group.kind": (("KIND_AUTO", "KIND_CPU"), "planning chooses the processors"),
    "model_transaction_policy.decoupled": (_NO, "each request has one answer"),
    "output.is_non_linear_format_io": (_NO, "tensors are plain arrays"),
    "output.is_shape_tensor": (_NO, "it is for TensorRT"),
}
"""Fields that are followed with these values only, as that is what happens here."""


def parsed(
    text: str, origin: str, *, lenient: bool
) -> tuple[Any, list[TextField], tuple[str, ...]]:
    """Parse the text.

    Args:
        text: In protobuf's text format.
        origin: The file, for messages.
        lenient: Ignore what is unknown or not followed.

    Returns:
        The message, the fields with their lines, and what was ignored.

    Raises:
        ConfigurationError: names the line and the field.
    """
    fields = text_fields(text)
    message = INFERENCE["ModelConfig"]()
    structure = [*_unknown(fields)]
    if structure and not lenient:
        _refuse(origin, structure)
    try:
        text_format.Parse(text, message, allow_unknown_field=bool(structure))
    except text_format.ParseError as error:
        raise ConfigurationError(_where(origin, error)) from error
    values = [*_not_followed(fields)]
    if values and not lenient:
        _refuse(origin, values)
    problems = sorted([*structure, *values])
    return message, fields, tuple(f"{origin}:{line}: {text}; ignored" for line, text in problems)


def _refuse(origin: str, problems: Sequence[tuple[int, str]]) -> None:
    shown = [f"{origin}:{line}: {text}" for line, text in problems[:_MOST_SHOWN]]
    if len(problems) > _MOST_SHOWN:
        shown.append(f"and {len(problems) - _MOST_SHOWN} more")
    raise ConfigurationError("; ".join(shown) + "; remove what is not followed, or read leniently")


def _where(origin: str, error: text_format.ParseError) -> str:
    """Write what the parser found; its own text begins with the line and the column."""
    text = str(error)
    line = error.GetLine()
    if line is None:
        return f"{origin}: {text}"
    return f"{origin}:{line}: {text.split(' : ', 1)[-1]}"


def _unknown(fields: Sequence[TextField]) -> Iterator[tuple[int, str]]:
    """Yield the fields without a place in the message; of those inside of one, nothing."""
    lost: set[tuple[str, ...]] = set()
    for each in fields:
        if any(each.path[:depth] in lost for depth in range(1, len(each.path))):
            continue
        descriptor = INFERENCE["ModelConfig"].DESCRIPTOR
        for name in each.path[:-1]:
            known = descriptor and descriptor.fields_by_name.get(name)
            descriptor = known and known.message_type
        if descriptor is not None and each.path[-1] not in descriptor.fields_by_name:
            lost.add(each.path)
            yield each.line, _unknown_text(each, tuple(descriptor.fields_by_name))


def _unknown_text(field: TextField, known: Sequence[str]) -> str:
    reason = _NOT_FOLLOWED.get(field.dotted)
    if reason is not None:
        return f"{field.dotted} is not followed: {reason}"
    near = get_close_matches(field.path[-1], known, n=1)
    guess = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown field {field.dotted!r}{guess}"


def _not_followed(fields: Sequence[TextField]) -> Iterator[tuple[int, str]]:
    """Yield the fields that have a place in the message, and are not followed."""
    for each in fields:
        reason = _NOT_FOLLOWED.get(each.dotted)
        if reason is not None and _has_place(each):
            yield each.line, f"{each.dotted} is not followed: {reason}"
        elif each.dotted in _FOLLOWED_IF:
            followed, reason = _FOLLOWED_IF[each.dotted]
            if each.value not in followed:
                yield each.line, f"{each.dotted}: {each.value} is not followed: {reason}"


def _has_place(field: TextField) -> bool:
    descriptor = INFERENCE["ModelConfig"].DESCRIPTOR
    for name in field.path:
        known = descriptor and descriptor.fields_by_name.get(name)
        if known is None:
            return False
        descriptor = known.message_type
    return True
