"""Signature: what a model takes and gives, as far as an ensemble must know it. A value."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from coinfer.errors import UnknownNameError
from coinfer.model import Model
from coinfer.model.inputs import batch_symbol, open_axes
from coinfer.model.specs import TensorSpec

__all__ = ["Signature"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What a model takes and gives.

    Attributes:
        inputs: Specs of its inputs.
        outputs: Specs of its outputs.
        optional: Names of the inputs that may be left out.
        has_batch: Whether an open first axis that all inputs share is the batch.

    >>> from coinfer.testing.models import tiny_linear
    >>> found = Signature.of(tiny_linear().model)
    >>> found.batch, found.input("x", "the net").layout
    ('N', 'float32[N,4]')
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    optional: frozenset[str] = frozenset()
    has_batch: bool = True

    @classmethod
    def of(cls, model: Model) -> Signature:
        """Return that of a model."""
        return cls(
            inputs=model.inputs,
            outputs=model.outputs,
            optional=frozenset(model.defaults),
            has_batch=model.batch_symbol is not None,
        )

    @property
    def batch(self) -> str | None:
        """Symbol of the batch axis; None: the model has none."""
        return batch_symbol(self.inputs, self.optional) if self.has_batch else None

    def is_batch_of(self, spec: TensorSpec) -> bool:
        """Tell whether the first axis of an input is the batch, or fixed to one sample."""
        if self.batch is None:
            return spec.shape[:1] == (1,)
        return open_axes(spec)[:1] == ((0, self.batch),)

    def gives_batch(self, spec: TensorSpec) -> bool:
        """Tell whether the first axis of an output is the batch, or fixed to one sample."""
        if not spec.rank_known:
            return True
        if self.batch is None:
            return spec.shape[:1] == (1,)
        return bool(spec.shape) and not isinstance(spec.shape[0], int)

    @property
    def required(self) -> frozenset[str]:
        """Names of the inputs that must be given."""
        return frozenset(spec.name for spec in self.inputs) - self.optional

    def input(self, name: str, whose: str) -> TensorSpec:
        """Return the spec of an input.

        Raises:
            UnknownNameError: there is none of this name.
        """
        return _named("input", name, self.inputs, whose)

    def output(self, name: str, whose: str) -> TensorSpec:
        """Return the spec of an output.

        Raises:
            UnknownNameError: there is none of this name.
        """
        return _named("output", name, self.outputs, whose)


def _named(kind: str, name: str, specs: Iterable[TensorSpec], whose: str) -> TensorSpec:
    found = {spec.name: spec for spec in specs}
    if name not in found:
        raise UnknownNameError.of(f"{kind} of {whose}", name, found)
    return found[name]
