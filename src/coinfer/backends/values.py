"""Values: tensors by name, as the parts of a model hand them on. Knows no library.

A value is an array, or it belongs to a backend that keeps it in a form of its own, perhaps on a
device of its own. Between two sessions of one kind nobody looks into it, so it can stay as it is;
everybody else asks for an array. Whoever runs parts of models needs only what is here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Protocol, Self, TypeAlias

import numpy as np

from coinfer.backends.base import Session, Tensor, Tensors

__all__ = [
    "Owned",
    "PartSession",
    "Value",
    "Values",
    "joined",
    "own_runs",
    "parted",
    "run_part",
    "to_host",
]


class Owned(Protocol):
    """A tensor that a backend keeps. The first axis is that of requests, as in an array."""

    def to_host(self) -> Tensor:
        """Return it as an array, C-contiguous."""
        ...

    def copy(self) -> Self:
        """Return one that shares no memory with it."""
        ...

    def join(self, others: Sequence[Value]) -> Self | None:
        """Put others behind it along the first axis; None if they are not of its form."""
        ...

    def part(self, cuts: Sequence[int]) -> list[Self]:
        """Cut it along the first axis before these positions."""
        ...


Value: TypeAlias = Tensor | Owned
"""A tensor: an array, or what a backend keeps."""

Values: TypeAlias = Mapping[str, Value]
"""Tensors by name."""


class PartSession(Session, Protocol):
    """A session of a part of a model (`Model.borders`) that need not give arrays at its borders.

    Its `run` takes and gives arrays like that of any other session.
    """

    def run_part(self, inputs: Values) -> dict[str, Value]:
        """Compute all outputs from inputs of whatever owner; it may keep those at borders."""
        ...

    def owned(self, inputs: Values) -> dict[str, Value]:
        """Return inputs in the form that `run_part` need not convert."""
        ...


def run_part(session: Session, inputs: Values) -> dict[str, Value]:
    """Run a part of a model on a session of any library, whoever owns the values.

    >>> from coinfer.backends.null import NullBackend
    >>> from coinfer.machine.processor import Processor
    >>> from coinfer.testing.models import tiny_linear
    >>> processor = Processor(name="p", backend="null", units=frozenset({"p"}))
    >>> session = NullBackend().load(tiny_linear().model, processor)
    >>> run_part(session, {"x": np.ones((1, 4), np.float32)})["y"].shape
    (1, 3)
    """
    part = _as_part(session)
    return {**session.run(to_host(inputs))} if part is None else part.run_part(inputs)


def own_runs(session: Session, feeds: Sequence[Tensors]) -> list[Callable[[], object]]:
    """Return a run on each of these inputs; of a part of a model, as its own kind gives them."""
    part = _as_part(session)
    if part is None:
        return [partial(session.run, feed) for feed in feeds]
    return [partial(part.run_part, part.owned(feed)) for feed in feeds]


def to_host(values: Values) -> dict[str, Tensor]:
    """Return values as arrays; what is an array stays the same one."""
    return {n: v if isinstance(v, np.ndarray) else v.to_host() for n, v in values.items()}


def joined(values: Sequence[Value]) -> Value:
    """Put values one behind the other along the first axis; its owner's if all are of one form."""
    first = values[0]
    if not isinstance(first, np.ndarray):
        together = first.join(values[1:])
        if together is not None:
            return together
    return np.concatenate([v if isinstance(v, np.ndarray) else v.to_host() for v in values])


def parted(value: Value, cuts: Sequence[int]) -> list[Value]:
    """Cut a value along the first axis before these positions."""
    if not isinstance(value, np.ndarray):
        return [*value.part(cuts)]
    # Not `np.split`, which takes ten times as long.
    return [value[begin:end] for begin, end in pairwise((0, *cuts, len(value)))]


def _as_part(session: Session) -> PartSession | None:
    # Not `isinstance`: with a protocol that takes longer than many a run.
    return session if hasattr(session, "run_part") else None  # type: ignore[return-value]
