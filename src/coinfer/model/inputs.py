"""Check inputs against a model's specs, and make inputs that fit. Knows specs, not graphs.

`InputCheck` runs once per request, so everything that depends on the model alone is worked out
when it is built.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from coinfer.errors import InputError, ModelError
from coinfer.model.outline import Outline
from coinfer.model.specs import TensorSpec

__all__ = [
    "InputCheck",
    "batch_symbol",
    "has_open_dims",
    "open_axes",
    "sample_inputs",
]

_log = logging.getLogger(__name__)

_SAFE_HIGH = 2
"""0 and 1 are valid as ids of any vocabulary, as segment ids and as masks."""

_Rule = tuple[
    TensorSpec,
    str,
    np.dtype[Any],
    int,
    tuple[tuple[int, int], ...],
    tuple[tuple[int, str], ...],
]
"""Spec, name, dtype, rank, (axis, fixed size)..., (axis, symbol)..."""


def _symbol(spec: TensorSpec, axis: int) -> str:
    """Name of an open axis; an axis that the model left nameless is called `input:axis`."""
    dim = spec.shape[axis]
    return dim if isinstance(dim, str) else f"{spec.name}:{axis}"


def open_axes(spec: TensorSpec) -> tuple[tuple[int, str], ...]:
    """Return the open axes of an input, each with its name."""
    return tuple(
        (axis, _symbol(spec, axis))
        for axis, dim in enumerate(spec.shape)
        if not isinstance(dim, int)
    )


def _sized(spec: TensorSpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Shape of an input whose open axes have these sizes, by symbol."""
    return tuple(
        dim if isinstance(dim, int) else sizes[_symbol(spec, axis)]
        for axis, dim in enumerate(spec.shape)
    )


def batch_symbol(specs: tuple[TensorSpec, ...]) -> str | None:
    """Find the symbol of the batch: the one that leads every input whose first axis is open.

    Returns:
        The symbol, or None if no first axis is open or if they have different symbols.

    >>> f4 = np.dtype("float32")
    >>> batch_symbol((TensorSpec(name="x", dtype=f4, shape=("N", 3)),))
    'N'
    """
    leading = {symbol for spec in specs for axis, symbol in open_axes(spec) if axis == 0}
    return leading.pop() if len(leading) == 1 else None


def has_open_dims(specs: Sequence[TensorSpec]) -> bool:
    """Return whether a dimension of inputs is open that is not the batch.

    >>> f4 = np.dtype("float32")
    >>> [has_open_dims([TensorSpec(name="x", dtype=f4, shape=shape)]) for shape in ("N", "NS")]
    [False, True]
    """
    symbols = {symbol for spec in specs for _, symbol in open_axes(spec)}
    return bool(symbols - {batch_symbol(tuple(specs))})


@dataclass(frozen=True, slots=True)
class InputCheck:
    """The precomputed check of one model's inputs.

    Attributes:
        model: Name of the model, for messages.
        specs: Specs of the inputs.
        outline: Says whether inputs fit in which a symbol has several sizes; None: they never do.
        batch: Symbol whose size is the batch size, or None.
        rules: Per input what `__call__` compares.
    """

    model: str
    specs: tuple[TensorSpec, ...]
    outline: Outline | None = field(default=None, compare=False)
    has_batch: bool = True
    batch: str | None = field(init=False)
    rules: tuple[_Rule, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Work out what depends on the specs alone."""
        rules = tuple(
            (
                spec,
                spec.name,
                spec.dtype,
                len(spec.shape),
                tuple((axis, dim) for axis, dim in enumerate(spec.shape) if isinstance(dim, int)),
                open_axes(spec),
            )
            for spec in self.specs
        )
        batch = batch_symbol(self.specs) if self.has_batch else None
        object.__setattr__(self, "batch", batch)
        object.__setattr__(self, "rules", rules)

    @property
    def open_dims(self) -> dict[str, tuple[str, int]]:
        """The open dimensions but for the batch, each with the first input and axis it names."""
        found: dict[str, tuple[str, int]] = {}
        for spec in self.specs:
            for axis, name in open_axes(spec):
                found.setdefault(name, (spec.name, axis))
        found.pop(self.batch or "", None)
        return found

    def sizes_of(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, int]:
        """Read the sizes of the open dimensions of inputs that fit."""
        return {name: inputs[of].shape[axis] for name, (of, axis) in self.open_dims.items()}

    @property
    def batched(self) -> frozenset[str]:
        """Names of the inputs whose first axis is the batch."""
        return frozenset(
            spec.name for spec in self.specs if open_axes(spec)[:1] == ((0, self.batch),)
        )

    def __call__(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> int:
        """Check names, dtypes, shapes and that equal symbols have equal sizes.

        Exporters use one symbol for sizes that need not be equal. So where no operator of the
        model contradicts unequal ones, they are taken, and logged once; but for those of the batch.
        Open axes may be empty, as a cache of what came before is at first, but not the batch.

        Returns:
            The batch size; 1 for a model without a batch axis.

        Raises:
            InputError: the first thing that does not fit, and the remedy.
        """
        if len(inputs) != len(self.rules):
            raise self._wrong_names(inputs)
        sizes: dict[str, int] = {}
        unequal: str | None = None
        for spec, name, dtype, rank, fixed, symbolic in self.rules:
            array = inputs.get(name)
            if array is None:
                raise self._wrong_names(inputs)
            if (
                not isinstance(array, np.ndarray)  # type: ignore[redundant-expr]
                or array.ndim != rank
                or (array.dtype is not dtype and array.dtype != dtype)
            ):
                self._check_one(spec, array)
            shape = array.shape
            for axis, size in fixed:
                if shape[axis] != size:
                    self._check_one(spec, array)
            for axis, symbol in symbolic:
                size = shape[axis]
                if sizes.setdefault(symbol, size) != size:
                    unequal = symbol if unequal is None or symbol == self.batch else unequal
        if unequal is not None:
            self._check_unequal(inputs, unequal, sizes)
        if self.batch is None:
            return 1
        batch = sizes[self.batch]
        if batch < 1:
            raise self._empty_batch()
        return batch

    def _check_unequal(
        self, inputs: Mapping[str, np.ndarray[Any, Any]], symbol: str, sizes: Mapping[str, int]
    ) -> None:
        outline = self.outline
        if symbol == self.batch or outline is None:
            raise self._disagreement(inputs, symbol)
        equal = {spec.name: _sized(spec, sizes) for spec in self.specs}
        # If the outline refuses equal sizes too, it cannot tell, and the library that runs it will.
        given = {spec.name: inputs[spec.name].shape for spec in self.specs}
        if not outline.fits(given) and outline.fits(equal):
            raise self._disagreement(inputs, symbol)
        if not outline.warned:
            outline.warned = True
            _log.warning(
                "model %r: %r is %s; its operators do not contradict, so such inputs are taken",
                *(self.model, symbol, self._found(inputs, symbol)),
            )

    def _check_one(self, spec: TensorSpec, array: np.ndarray[Any, Any]) -> None:
        try:
            spec.check(array)
        except InputError as error:
            raise InputError(f"model {self.model!r}: {error}") from None

    def _wrong_names(self, inputs: Mapping[str, Any]) -> InputError:
        wanted = [spec.name for spec in self.specs]
        missing = [name for name in wanted if name not in inputs]
        extra = [str(name) for name in inputs if name not in wanted]
        parts = [
            f"{word} {', '.join(map(repr, names))}"
            for word, names in (("missing", missing), ("unknown", extra))
            if names
        ]
        if not parts:  # a name is there and its value is None
            parts = [f"no value for {name!r}" for name in wanted if inputs[name] is None][:1]
        listed = ", ".join(map(str, self.specs)) or "nothing"
        return InputError(f"model {self.model!r}: inputs: {'; '.join(parts)}; it takes {listed}")

    def _empty_batch(self) -> InputError:
        name = next(s.name for s in self.specs if s.shape and _symbol(s, 0) == self.batch)
        return InputError(
            f"model {self.model!r}: input {name!r} is an empty batch; axis 0 must be at least 1"
        )

    def _disagreement(self, inputs: Mapping[str, np.ndarray[Any, Any]], symbol: str) -> InputError:
        return InputError(
            f"model {self.model!r}: {symbol!r} must have one size but is "
            f"{self._found(inputs, symbol)}; give all of them the same size"
        )

    def _found(self, inputs: Mapping[str, np.ndarray[Any, Any]], symbol: str) -> str:
        """Say which sizes a symbol has."""
        return ", ".join(
            f"{inputs[spec.name].shape[axis]} in axis {axis} of {spec.name!r}"
            for spec in self.specs
            for axis, name in open_axes(spec)
            if name == symbol and spec.name in inputs and axis < inputs[spec.name].ndim
        )


def sample_inputs(
    check: InputCheck,
    *,
    batch: int,
    seed: int,
    dims: Mapping[str, int],
    highs: Mapping[str, int],
) -> dict[str, np.ndarray[Any, Any]]:
    """Make seeded random inputs that fit; see `Model.sample_inputs`."""
    sizes = _sizes(check, batch, dims)
    rng = np.random.default_rng(seed)
    return {
        spec.name: _random(
            check.model,
            spec,
            _sized(spec, sizes),
            rng,
            highs.get(spec.name, _SAFE_HIGH),
        )
        for spec in check.specs
    }


def _sizes(check: InputCheck, batch: int, dims: Mapping[str, int]) -> dict[str, int]:
    symbols = {symbol for spec in check.specs for _, symbol in open_axes(spec)}
    sizes = {check.batch: batch} if check.batch is not None else {}
    sizes.update(dims)
    if unknown := sorted(sizes.keys() - symbols):
        raise InputError(
            f"model {check.model!r} has no open dimension {unknown[0]!r}; it has "
            f"{', '.join(sorted(symbols)) or 'none'}"
        )
    if unset := sorted(symbols - sizes.keys()):
        raise InputError(
            f"model {check.model!r} leaves the dimension {unset[0]!r} open; say how large it is, "
            f"e.g. dims={{{unset[0]!r}: 64}}"
        )
    for symbol, size in sizes.items():
        least = 1 if symbol == check.batch else 0
        if size < least:
            raise InputError(
                f"model {check.model!r}: dimension {symbol!r} is {size}; it must be at least "
                f"{least}"
            )
    return sizes


def _random(
    model: str, spec: TensorSpec, shape: tuple[int, ...], rng: np.random.Generator, high: int
) -> np.ndarray[Any, Any]:
    kind = spec.dtype.kind
    if kind == "O":
        raise ModelError(
            f"model {model!r}: there are no random strings for input {spec.name!r}; give the "
            f"inputs in an .npz file"
        )
    if kind == "b":
        return rng.integers(0, 2, shape).astype(spec.dtype)
    if "int" in spec.dtype.name:  # also those of 4 and 2 bits, which numpy does not know
        return rng.integers(0, max(high, 1), shape).astype(spec.dtype)
    return rng.standard_normal(shape, dtype=np.float32).astype(spec.dtype)
