"""Check inputs against a model's specs, and make inputs that fit. Knows specs, not graphs.

`InputCheck` runs once per request, so everything that depends on the model alone is worked out
when it is built.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from coinfer.errors import InputError, ModelError
from coinfer.model.outline import Outline
from coinfer.model.specs import TensorSpec
from coinfer.units import format_bytes

__all__ = [
    "MOST_BYTES",
    "InputCheck",
    "batch_symbol",
    "fixed_first_axis",
    "has_open_dims",
    "open_axes",
    "sample_bytes",
    "sample_inputs",
    "with_first_axis",
]

_log = logging.getLogger(__name__)

MOST_BYTES = 2**31
"""Of the inputs that are made or read for one model, all together."""

_DRAWN_BYTES = 8
"""Whole numbers are drawn in 64 bits, whatever they become."""

_SAFE_HIGH = 2
"""0 and 1 are valid as ids of any vocabulary, as segment ids and as masks."""

_KNOWN_SHAPES = 64
"""Shapes of a lone input that are known to fit; to check one anew costs a microsecond."""

_Array = np.ndarray

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


def batch_symbol(specs: tuple[TensorSpec, ...], optional: Collection[str] = ()) -> str | None:
    """Find the symbol of the batch: the one that leads every input whose first axis is open.

    Args:
        specs: Specs of the inputs.
        optional: Names of those that may be left out; they do not count.

    Returns:
        The symbol, or None if no first axis is open or if they have different symbols.

    >>> f4 = np.dtype("float32")
    >>> batch_symbol((TensorSpec(name="x", dtype=f4, shape=("N", 3)),))
    'N'
    """
    required = [spec for spec in specs if spec.name not in optional]
    leading = {symbol for spec in required for axis, symbol in open_axes(spec) if axis == 0}
    return leading.pop() if len(leading) == 1 else None


def with_first_axis(
    specs: Sequence[TensorSpec], before: int | str, after: int | str
) -> tuple[TensorSpec, ...]:
    """Return specs with another first axis, where it is this one.

    >>> f4 = np.dtype("float32")
    >>> str(with_first_axis([TensorSpec(name="x", dtype=f4, shape=(4, 3))], 4, "batch")[0])
    'x: float32[batch,3]'
    """
    return tuple(
        dataclasses.replace(spec, shape=(after, *spec.shape[1:]))
        if spec.shape[:1] == (before,)
        else spec
        for spec in specs
    )


def fixed_first_axis(model_inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> int:
    """Return the size, from 2, that leads all outputs and some input; 0 if there is none.

    That may be a fixed batch; only running the model tells.

    >>> f4 = np.dtype("float32")
    >>> x, y = (TensorSpec(name=n, dtype=f4, shape=(4, 3)) for n in "xy")
    >>> fixed_first_axis([x], [y]), fixed_first_axis([x], [])
    (4, 0)
    """
    sizes = {spec.shape[0] if spec.shape else 0 for spec in outputs}
    size = sizes.pop() if len(sizes) == 1 else 0
    leads = any(spec.shape[:1] == (size,) for spec in model_inputs)
    return size if isinstance(size, int) and size > 1 and leads else 0


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
        defaults: Values of inputs that may be left out, by name.
        fixed: Names of weights that the file lists among its inputs.
        batch: Symbol whose size is the batch size, or None.
        rules: Per input what `__call__` compares.
    """

    model: str
    specs: tuple[TensorSpec, ...]
    outline: Outline | None = field(default=None, compare=False)
    has_batch: bool = True
    defaults: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict, compare=False)
    fixed: frozenset[str] = frozenset()
    batch: str | None = field(init=False)
    rules: tuple[_Rule, ...] = field(init=False)
    _lone: tuple[str, np.dtype[Any]] = field(init=False, repr=False, compare=False)
    _batches: dict[tuple[int, ...], int] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

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
        batch = batch_symbol(self.specs, self.defaults) if self.has_batch else None
        object.__setattr__(self, "batch", batch)
        object.__setattr__(self, "rules", rules)
        object.__setattr__(self, "_lone", (rules[0][1], rules[0][2]) if rules else ("", None))

    @property
    def open_dims(self) -> dict[str, tuple[str, int]]:
        """The open dimensions but for the batch, each with the first input and axis it names."""
        found: dict[str, tuple[str, int]] = {}
        for spec in self.specs:
            for axis, name in () if spec.name in self.defaults else open_axes(spec):
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
        Open axes may be empty, as a cache of what came before is at first, the batch too.

        Returns:
            The batch size; 1 for a model without a batch axis.

        Raises:
            InputError: the first thing that does not fit, and the remedy.
        """
        batches = self._batches  # those of a lone input by its shape, as they were found before
        if batches and len(inputs) == 1:
            name, dtype = self._lone
            lone = inputs.get(name)
            if type(lone) is _Array and lone.dtype is dtype:
                known = batches.get(lone.shape)
                if known is not None:
                    return known
        rules = self.rules
        if len(inputs) != len(rules):
            rules = self._rules_of(inputs)
        sizes: dict[str, int] = {}
        unequal: str | None = None
        for spec, name, dtype, rank, fixed, symbolic in rules:
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
        batch_size = 1 if self.batch is None else sizes[self.batch]
        if len(rules) == len(self.rules) == 1 and unequal is None and len(batches) < _KNOWN_SHAPES:
            batches[shape] = batch_size
        return batch_size

    def filled(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
        """Return inputs with the defaults of those that are left out."""
        return {**self.defaults, **inputs}

    def _rules_of(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> tuple[_Rule, ...]:
        """Return the rules of the inputs that are given, if the others have defaults."""
        rules = tuple(
            rule for rule in self.rules if rule[1] in inputs or rule[1] not in self.defaults
        )
        if len(inputs) != len(rules):
            raise self._wrong_names(inputs)
        return rules

    def _check_unequal(
        self, inputs: Mapping[str, np.ndarray[Any, Any]], symbol: str, sizes: Mapping[str, int]
    ) -> None:
        outline = self.outline
        if symbol == self.batch or outline is None:
            raise self._disagreement(inputs, symbol)
        given = {spec.name: self.filled(inputs)[spec.name].shape for spec in self.specs}
        equal = given | {s.name: _sized(s, sizes) for s in self.specs if s.name in inputs}
        # If the outline refuses equal sizes too, it cannot tell, and the library that runs it will.
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
        missing = [name for name in wanted if name not in inputs and name not in self.defaults]
        extra = [str(name) for name in inputs if name not in wanted]
        if weights := sorted(self.fixed.intersection(extra)):
            return InputError(
                f"model {self.model!r}: input {weights[0]!r} cannot be given: its file lists "
                "weights as inputs, so all inputs with an initializer are constants; take those "
                "that are never given out of graph.input and save it with IR version 4 or later"
            )
        parts = [
            f"{word} {', '.join(map(repr, names))}"
            for word, names in (("missing", missing), ("unknown", extra))
            if names
        ]
        if not parts:  # a name is there and its value is None
            parts = [f"no value for {name!r}" for name in inputs if inputs[name] is None][:1]
        optional = dict.fromkeys(self.defaults, " (optional)")
        listed = ", ".join(f"{s}{optional.get(s.name, '')}" for s in self.specs) or "nothing"
        return InputError(f"model {self.model!r}: inputs: {'; '.join(parts)}; it takes {listed}")

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
    if sample_bytes(check, batch=batch, dims=dims) > MOST_BYTES:
        sizes = _sizes(check, batch, dims)
        shapes = ", ".join(
            f"{spec.name!r}: {list(_sized(spec, sizes))}" for spec in _required(check)
        )
        raise InputError(
            f"model {check.model!r}: inputs of the shapes {shapes} take more than "
            f"{format_bytes(MOST_BYTES)}, the most that is made; name smaller sizes, or give "
            f"the inputs yourself"
        )
    sizes = _sizes(check, batch, dims)
    rng = np.random.default_rng(seed)
    return check.filled(
        {
            spec.name: _random(
                check.model,
                spec,
                _sized(spec, sizes),
                rng,
                highs.get(spec.name, _SAFE_HIGH),
            )
            for spec in check.specs
            if spec.name not in check.defaults
        }
    )


def sample_bytes(check: InputCheck, *, batch: int, dims: Mapping[str, int]) -> int:
    """Return what making random inputs takes, without those that have a default.

    Raises:
        InputError: as for `Model.sample_inputs`.
    """
    sizes = _sizes(check, batch, dims)
    return sum(
        math.prod(_sized(spec, sizes))
        * (spec.dtype.itemsize if spec.dtype.kind == "f" else _DRAWN_BYTES)
        for spec in _required(check)
    )


def _required(check: InputCheck) -> list[TensorSpec]:
    return [spec for spec in check.specs if spec.name not in check.defaults]


def _sizes(check: InputCheck, batch: int, dims: Mapping[str, int]) -> dict[str, int]:
    required = _required(check)
    symbols = {symbol for spec in required for _, symbol in open_axes(spec)}
    sizes = {check.batch: batch} if check.batch is not None else {}
    sizes.update(dims)
    if unknown := sorted(sizes.keys() - symbols):
        raise InputError(
            f"model {check.model!r}: there is no open dimension {unknown[0]!r}; it has "
            f"{', '.join(sorted(symbols)) or 'none'}"
        )
    if unset := sorted(symbols - sizes.keys()):
        raise InputError(
            f"model {check.model!r}: it leaves the dimension {unset[0]!r} open; say how large it "
            f"is, e.g. dims={{{unset[0]!r}: 64}}"
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
