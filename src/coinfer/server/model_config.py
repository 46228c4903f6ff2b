"""ModelConfig: what a `config.pbtxt` of a model repository asks for, as far as it applies here.

Fields that are unknown, or known and not followed, are errors that name the line: a server that
ignored them would not do what its owner wrote. The file says nothing that a graph does not know
better; what it says of inputs and outputs is compared with the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coinfer.errors import ConfigurationError
from coinfer.model import Model
from coinfer.model.datatypes import datatype_of
from coinfer.model.specs import TensorSpec
from coinfer.server.config_text import parsed

__all__ = ["Batching", "ModelConfig", "TensorConfig", "Versions", "Warmup", "read_model_config"]

_MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorConfig:
    """An input or output as the file describes it.

    Attributes:
        name: Its name.
        datatype: The protocol's name of its element type; empty if the file says none.
        dims: Sizes without the batch, -1 for any; None if the file says none.
        optional: Whether requests may leave it out.
        label_file: Of an output, the file with the names of its classes; empty: none.
        line: Where it stands.
    """

    name: str
    datatype: str
    dims: tuple[int, ...] | None
    optional: bool = False
    label_file: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """How requests may share a run.

    Attributes:
        preferred: Sizes of batches that are preferred; empty: none.
        max_delay_s: How long a request may wait for others, in seconds.
        priority_levels: 1, the most urgent, to this; 0: there are none.
        default_priority: Of requests that name none; 0: none.
        default_timeout_s: Seconds until a request that waits is late; None: never.
        drops_late: Whether a request that is late is refused; otherwise it runs after the others.
        timeout_may_be_given: Whether requests may state a timeout of their own.
        max_waiting: Requests that may wait; 0: any number.
    """

    preferred: tuple[int, ...] = ()
    max_delay_s: float = 0.0
    priority_levels: int = 0
    default_priority: int = 0
    default_timeout_s: float | None = None
    drops_late: bool = True
    timeout_may_be_given: bool = False
    max_waiting: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """Which versions of a model are served.

    Attributes:
        latest: The highest so many; None: not chosen by number.
        specific: These; None: not chosen one by one. If both are None, all are served.

    >>> Versions(latest=2).of([1, 3, 7]), Versions(specific=(1, 9)).of([1, 3]), Versions().of([1])
    ((3, 7), (1,), (1,))
    """

    latest: int | None = None
    specific: tuple[int, ...] | None = None

    def of(self, existing: list[int]) -> tuple[int, ...]:
        """Return those of the existing versions that are served, in order."""
        ordered = sorted(existing)
        if self.specific is not None:
            return tuple(version for version in ordered if version in self.specific)
        return tuple(ordered if self.latest is None else ordered[-self.latest :])


@dataclass(frozen=True, slots=True, kw_only=True)
class Warmup:
    """Requests that are answered before the model is ready.

    Attributes:
        name: What the file calls them.
        batch: Samples in each; 0: the inputs have no batch.
        count: How many times.
        inputs: By input: datatype, dims without the batch, and `zero` or `random`.
    """

    name: str
    batch: int
    count: int
    inputs: dict[str, tuple[str, tuple[int, ...], str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """What a model's file asks for.

    Attributes:
        origin: The file, for messages.
        name: The model's name; empty if the file says none.
        backend: `onnxruntime` or `openvino`; empty if the file says none.
        max_batch: Samples in a request at most; 0: requests have no batch axis that is not in
            `dims`; None: the file says nothing.
        model_file: Name of the file in the folder of a version.
        inputs: As described; empty: not described.
        outputs: As described; empty: not described.
        instances: Runs at the same time that the file asks for; None: it does not say.
        batching: How requests share runs; None: the file does not say, and they do not.
        versions: Which are served.
        warmups: What is asked before the model is ready.
        warnings: What was ignored, of a file that was read leniently.
    """

    origin: str
    name: str = ""
    backend: str = ""
    max_batch: int | None = None
    model_file: str = "model.onnx"
    inputs: tuple[TensorConfig, ...] = ()
    outputs: tuple[TensorConfig, ...] = ()
    instances: int | None = None
    batching: Batching | None = None
    versions: Versions = field(default_factory=lambda: Versions(latest=1))
    warmups: tuple[Warmup, ...] = ()
    warnings: tuple[str, ...] = ()

    def check(self, model: Model) -> None:
        """Compare with the model's graph.

        Raises:
            ConfigurationError: names every input and output that is described otherwise, with the
                line.
        """
        problems = [*self._problems(model)]
        if problems:
            raise ConfigurationError("; ".join(problems))

    def _problems(self, model: Model) -> Iterator[str]:
        if self.max_batch and model.batch_symbol is None:
            yield (
                f"{self.origin}: max_batch_size is {self.max_batch}, but the inputs of the graph "
                "have no open first axis in common; set it to 0 and give all of `dims`"
            )
            return
        yield from self._compared("input", self.inputs, model.inputs)
        yield from self._compared("output", self.outputs, model.outputs)
        described = {tensor.name for tensor in self.inputs}
        for spec in model.inputs if self.inputs else ():
            if spec.name not in described and spec.name not in model.defaults:
                yield f"{self.origin}: the graph needs input {spec.name!r} too; add it"
        for tensor in self.inputs:
            if tensor.optional and tensor.name not in model.defaults:
                yield (
                    f"{self.origin}:{tensor.line}: input {tensor.name!r} is optional here, but "
                    "has no default in the graph"
                )

    def _compared(
        self, kind: str, tensors: tuple[TensorConfig, ...], specs: tuple[TensorSpec, ...]
    ) -> Iterator[str]:
        known = {spec.name: spec for spec in specs}
        for tensor in tensors:
            where = f"{self.origin}:{tensor.line}: {kind} {tensor.name!r}"
            spec = known.get(tensor.name)
            if spec is None:
                yield f"{where} is not in the graph, which has {', '.join(known) or 'none'}"
                continue
            has = datatype_of(spec.dtype)
            if tensor.datatype and tensor.datatype != has:
                yield f"{where} is {tensor.datatype} here and {has} in the graph"
            if tensor.dims is not None and spec.rank_known:
                whole = (-1, *tensor.dims) if self.max_batch else tensor.dims
                if not _fits(whole, spec.shape):
                    yield f"{where} is {list(whole)} here and {spec.shape_text} in the graph"


def _fits(dims: tuple[int, ...], shape: tuple[int | str | None, ...]) -> bool:
    """Tell whether the sizes narrow a graph's shape: an open axis may be given a size."""
    return len(dims) == len(shape) and all(
        not isinstance(size, int) or size == dim for dim, size in zip(dims, shape, strict=True)
    )


def read_model_config(
    path: Path, *, lenient: bool = False, warn: Callable[[str], None] = lambda _: None
) -> ModelConfig:
    """Read a `config.pbtxt`.

    Args:
        path: The file.
        lenient: Ignore what is unknown or not followed here, with a warning.
        warn: Is told what was ignored.

    Raises:
        ConfigurationError: the file cannot be read, has a wrong form, or, unless `lenient`, a field
            that is unknown or not followed; the message names the line and the field.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > _MOST_BYTES:
        raise ConfigurationError(f"{path} has more than 1 MiB; that is no configuration of a model")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 text") from error
    config = config_from_text(text, origin=str(path), lenient=lenient)
    for warning in config.warnings:
        warn(warning)
    return config


def config_from_text(text: str, *, origin: str, lenient: bool = False) -> ModelConfig:
    """Read the text of a `config.pbtxt`; see `read_model_config`.

    >>> config = config_from_text('max_batch_size: 8', origin="config.pbtxt")
    >>> config.max_batch, config.versions.latest
    (8, 1)
    """
    message, fields, warnings = parsed(text, origin, lenient=lenient)
    lines: dict[str, list[int]] = {}
    for each in fields:
        lines.setdefault(each.dotted, []).append(each.line)
    return ModelConfig(
        origin=origin,
        name=message.name,
        backend=_backend(message, origin, lines),
        max_batch=_max_batch(message, origin, lines),
        model_file=message.default_model_filename or "model.onnx",
        inputs=tuple(_tensors(message.input, lines.get("input.name", []))),
        outputs=tuple(_tensors(message.output, lines.get("output.name", []))),
        instances=sum(group.count or 1 for group in message.instance_group) or None,
        batching=_batching(message),
        versions=_versions(message.version_policy),
        warmups=tuple(_warmup(each) for each in message.model_warmup),
        warnings=warnings,
    )


def _backend(message: Any, origin: str, lines: dict[str, list[int]]) -> str:
    if message.backend not in ("", "onnxruntime", "openvino"):
        raise ConfigurationError(
            f"{origin}:{lines['backend'][0]}: backend {message.backend!r} is not offered; it is "
            "onnxruntime or openvino"
        )
    if message.platform not in ("", "onnxruntime_onnx", "onnx_onnxv1"):
        raise ConfigurationError(
            f"{origin}:{lines['platform'][0]}: platform {message.platform!r} is not offered; it "
            "is onnxruntime_onnx"
        )
    return str(message.backend) or ("onnxruntime" if message.platform else "")


def _max_batch(message: Any, origin: str, lines: dict[str, list[int]]) -> int | None:
    if "max_batch_size" not in lines:
        return None
    if message.max_batch_size < 0:
        raise ConfigurationError(
            f"{origin}:{lines['max_batch_size'][0]}: max_batch_size must be at least 0"
        )
    return int(message.max_batch_size)


def _tensors(described: Any, lines: list[int]) -> Iterator[TensorConfig]:
    for number, each in enumerate(described):
        yield TensorConfig(
            name=each.name,
            datatype=_datatype(each),
            dims=tuple(each.dims) if each.dims else None,
            optional=getattr(each, "optional", False),
            label_file=getattr(each, "label_filename", ""),
            line=lines[number] if number < len(lines) else 0,
        )


def _datatype(described: Any) -> str:
    """Return the protocol's name of a datatype of the file; empty if there is none."""
    [name] = [
        value.name
        for value in described.DESCRIPTOR.fields_by_name["data_type"].enum_type.values
        if value.number == described.data_type
    ] or ["TYPE_INVALID"]
    short = {"TYPE_INVALID": "", "TYPE_STRING": "BYTES"}
    return str(short.get(name, name.removeprefix("TYPE_")))


def _batching(message: Any) -> Batching | None:
    if not message.HasField("dynamic_batching"):
        return None
    asked = message.dynamic_batching
    policy = asked.default_queue_policy
    timeout_us = policy.default_timeout_microseconds
    return Batching(
        preferred=tuple(asked.preferred_batch_size),
        max_delay_s=asked.max_queue_delay_microseconds * 1e-6,
        priority_levels=asked.priority_levels,
        default_priority=asked.default_priority_level,
        default_timeout_s=timeout_us * 1e-6 if timeout_us else None,
        drops_late=policy.timeout_action == 0,
        timeout_may_be_given=policy.allow_timeout_override,
        max_waiting=policy.max_queue_size,
    )


def _versions(policy: Any) -> Versions:
    match policy.WhichOneof("policy_choice"):
        case "all":
            return Versions()
        case "specific":
            return Versions(specific=tuple(policy.specific.versions))
        case _:
            return Versions(latest=policy.latest.num_versions or 1)


def _warmup(asked: Any) -> Warmup:
    return Warmup(
        name=asked.name,
        batch=asked.batch_size,
        count=asked.count or 1,
        inputs={
            name: (
                _datatype(each),
                tuple(each.dims),
                "random" if each.WhichOneof("input_data_type") == "random_data" else "zero",
            )
            for name, each in asked.inputs.items()
        },
    )
