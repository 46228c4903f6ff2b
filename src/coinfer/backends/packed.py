"""Packed: a tensor in a library's own form, as parts of one model hand it to each other.

A library may keep activations in an order of its own, and convert them wherever arrays leave its
sessions. Between two sessions of parts of a model nobody looks at them, so they can stay as they
are. Knows no library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np

from coinfer.backends.base import Session, Tensor, Tensors

__all__ = [
    "Packed",
    "Packing",
    "PartSession",
    "Value",
    "Values",
    "copied",
    "joined",
    "own_runs",
    "part_run",
    "parted",
    "run_part",
    "unpacked",
]


class Packing(Protocol):
    """A form of a library's own. Both ways keep the first axis, so batches can be joined."""

    def pack(self, array: Tensor) -> Packed:
        """Bring an array into the form."""
        ...

    def unpack(self, array: Tensor) -> Tensor:
        """Return what a packed array says, C-contiguous."""
        ...


class Packed(NamedTuple):
    """A tensor in a form of a library's own.

    Attributes:
        array: What the library gave; its first axis is that of the tensor.
        packing: The form. Equal forms are one object.
    """

    array: Tensor
    packing: Packing

    def unpacked(self) -> Tensor:
        """Return the tensor as an array that anybody can read."""
        return self.packing.unpack(self.array)


Value: TypeAlias = Tensor | Packed
"""A tensor, perhaps packed."""

Values: TypeAlias = Mapping[str, Value]
"""Tensors by name, perhaps packed."""


class PartSession(Session, Protocol):
    """A session of a part of a model (`Model.borders`) that need not convert at its borders.

    Its `run` takes and gives arrays like that of any other session.
    """

    def run_part(self, inputs: Values) -> dict[str, Value]:
        """Compute all outputs from inputs in any form; those at borders may come packed."""
        ...

    def packed(self, inputs: Values) -> dict[str, Value]:
        """Return inputs in the form that `run_part` need not convert."""
        ...


def run_part(session: Session, inputs: Values) -> dict[str, Value]:
    """Run a part of a model on a session of any library; inputs and outputs may be packed.

    >>> from coinfer.backends.null import NullBackend
    >>> from coinfer.machine.processor import Processor
    >>> from coinfer.testing.models import tiny_linear
    >>> processor = Processor(name="p", backend="null", units=frozenset({"p"}))
    >>> session = NullBackend().load(tiny_linear().model, processor)
    >>> run_part(session, {"x": np.ones((1, 4), np.float32)})["y"].shape
    (1, 3)
    """
    return part_run(session)(inputs)


def part_run(session: Session) -> Callable[[Values], dict[str, Value]]:
    """Return what runs a part of a model on a session of any library."""
    part = _as_part(session)
    return partial(_run_plain, session) if part is None else part.run_part


def own_runs(session: Session, feeds: Sequence[Tensors]) -> list[Callable[[], object]]:
    """Return a run on each of these inputs; of a part of a model, as its own kind gives them."""
    part = _as_part(session)
    if part is None:
        return [partial(session.run, feed) for feed in feeds]
    return [partial(part.run_part, part.packed(feed)) for feed in feeds]


def unpacked(values: Values) -> dict[str, Tensor]:
    """Return values as arrays."""
    return {n: v.unpacked() if isinstance(v, Packed) else v for n, v in values.items()}


def copied(value: Value) -> Value:
    """Return a value that shares no memory with this one."""
    return Packed(value.array.copy(), value.packing) if isinstance(value, Packed) else value.copy()


def joined(values: Sequence[Value]) -> Value:
    """Put values one behind the other along the first axis; packed if all are in one form."""
    first = values[0]
    if isinstance(first, Packed):
        alike = [v.array for v in values if isinstance(v, Packed) and v.packing is first.packing]
        if len(alike) == len(values):
            return Packed(np.concatenate(alike), first.packing)
    return np.concatenate([v.unpacked() if isinstance(v, Packed) else v for v in values])


def parted(value: Value, cuts: Sequence[int]) -> list[Value]:
    """Cut a value along the first axis before these positions."""
    if isinstance(value, Packed):
        return [Packed(array, value.packing) for array in np.split(value.array, cuts)]
    return list(np.split(value, cuts))


def _run_plain(session: Session, inputs: Values) -> dict[str, Value]:
    return {**session.run(unpacked(inputs))}


def _as_part(session: Session) -> PartSession | None:
    # Not `isinstance`: with a protocol that takes longer than many a run.
    return session if hasattr(session, "run_part") else None  # type: ignore[return-value]
