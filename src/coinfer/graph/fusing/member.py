"""Member: one of the models that were fused, and what its values are called there. Names only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from coinfer.errors import ModelError
from coinfer.model import Model, TensorSpec

__all__ = ["Member", "members_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One of the models that were fused.

    Attributes:
        name: Its name; the prefix of its inputs and outputs.
        inputs: What its inputs are called in the fused model, by their own names.
        outputs: The same of its outputs.
    """

    name: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


def members_of(fused: Model, models: Mapping[str, Model]) -> tuple[Member, ...]:
    """Return the members of a fused model that was read from a file.

    Its inputs and outputs are those of the members, one after the other.

    Args:
        fused: The fused model.
        models: What was fused, by name, in that order.

    Raises:
        ModelError: it has others.
    """
    reads, writes = iter(fused.inputs), iter(fused.outputs)
    members = tuple(
        Member(
            name=name,
            inputs=_renamed(fused, model.inputs, reads),
            outputs=_renamed(fused, model.outputs, writes),
        )
        for name, model in models.items()
    )
    if next(reads, None) is not None or next(writes, None) is not None:
        raise _other(fused)
    return members


def _renamed(
    fused: Model, specs: Sequence[TensorSpec], theirs: Iterator[TensorSpec]
) -> dict[str, str]:
    found = {}
    for spec in specs:
        other = next(theirs, None)
        if other is None or other.dtype != spec.dtype:
            raise _other(fused)
        if other.rank_known and spec.rank_known and len(other.shape) != len(spec.shape):
            raise _other(fused)
        found[spec.name] = other.name
    return found


def _other(fused: Model) -> ModelError:
    return ModelError(
        f"{fused.name} does not have the inputs and outputs of the models that it is to answer for"
    )
