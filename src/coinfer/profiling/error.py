"""Output error: how far outputs are from a reference, and whether that is too far."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from coinfer.backends.base import Tensor, Tensors
from coinfer.machine.processor import Processor

__all__ = ["gap", "gaps", "relative_error", "too_imprecise"]


def relative_error(outputs: Sequence[Tensors], reference: Sequence[Tensors]) -> float:
    """Return the largest ||out - ref|| / ||ref|| over outputs and samples.

    Against an output of zeros it is ||out||. Infinite if an output is not finite where the
    reference is, or the other way round.

    >>> import numpy as np
    >>> relative_error([{"y": np.array([1.0, 1.1])}], [{"y": np.array([1.0, 1.0])}]) < 0.08
    True
    """
    return max(
        (
            _gap(out[name].astype(np.float64), expected.astype(np.float64))
            for out, ref in zip(outputs, reference, strict=True)
            for name, expected in ref.items()
        ),
        default=0.0,
    )


def gaps(outputs: Sequence[Tensors], reference: Sequence[Tensors]) -> dict[str, float]:
    """Return by output the largest gap over samples.

    >>> import numpy as np
    >>> out, ref = ({"y": np.array([1.0]), "i": np.array([i])} for i in (3, 2))
    >>> gaps([out], [ref])
    {'y': 0.0, 'i': inf}
    """
    found: dict[str, float] = {}
    for out, ref in zip(outputs, reference, strict=True):
        for name, expected in ref.items():
            found[name] = max(found.get(name, 0.0), gap(out[name], expected))
    return found


def gap(out: Tensor, ref: Tensor) -> float:
    """Return how far an output is from a reference: for floats ||out - ref|| / ||ref||.

    Infinite if integers, booleans or texts are not equal, or shape or type are not.
    """
    if out.shape != ref.shape or out.dtype != ref.dtype:
        return math.inf
    if ref.dtype.kind in "fV":  # bfloat16 is of kind V
        return _gap(out.astype(np.float64), ref.astype(np.float64))
    return 0.0 if np.array_equal(out, ref) else math.inf


def too_imprecise(
    what: str, processor: Processor, error: float | None, tolerance: float
) -> str | None:
    """Say why something must not run on a processor below fp32; None if it may.

    Args:
        what: A model, or a part of one.
        processor: Where it would run; in fp32 everything may.
        error: Its output error there; None: not measured, so it may not.
        tolerance: The largest error.

    >>> low = Processor(name="low", backend="null", units=frozenset({"u"}), precision="bf16")
    >>> too_imprecise("net", low, 0.05, 0.02)
    'net does not run on low: its output error against fp32 is 0.05, the tolerance 0.02'
    >>> too_imprecise("net", low, 0.01, 0.02)
    """
    found = math.inf if error is None else error
    if processor.precision == "fp32" or found <= tolerance:
        return None
    return (
        f"{what} does not run on {processor.name}: its output error against fp32 is {found:.3g}, "
        f"the tolerance {tolerance:g}"
    )


def _gap(out: npt.NDArray[np.float64], ref: npt.NDArray[np.float64]) -> float:
    finite = np.isfinite(ref)
    same_elsewhere = np.array_equal(out[~finite], ref[~finite], equal_nan=True)
    if not same_elsewhere or not np.isfinite(out[finite]).all():
        return float("inf")
    size = float(np.linalg.norm(ref[finite]))
    gap = float(np.linalg.norm(out[finite] - ref[finite]))
    return gap / size if size > 0 else gap
