"""Output error: how far outputs are from a reference. Knows no backend and no tolerance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from coinfer.backends.base import Tensors

__all__ = ["relative_error"]


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


def _gap(out: npt.NDArray[np.float64], ref: npt.NDArray[np.float64]) -> float:
    finite = np.isfinite(ref)
    same_elsewhere = np.array_equal(out[~finite], ref[~finite], equal_nan=True)
    if not same_elsewhere or not np.isfinite(out[finite]).all():
        return float("inf")
    size = float(np.linalg.norm(ref[finite]))
    gap = float(np.linalg.norm(out[finite] - ref[finite]))
    return gap / size if size > 0 else gap
