"""EVBMF: the rank of a matrix above its noise, by empirical variational Bayes.

The solution of Nakajima, Sugiyama, Babacan and Tomioka, "Global analytic solution of fully-observed
variational Bayesian matrix factorization", JMLR 14 (2013), theorem 2 and corollary 1; used for the
ranks of convolutions by Kim et al., ICLR 2016 (arXiv 1511.06530).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["evbmf_rank"]

_TAU = 2.5129
"""The threshold's constant, from the paper's equation for tau."""


def evbmf_rank(singular: npt.NDArray[np.float64], rows: int, columns: int) -> int:
    """Estimate how many singular values stand out of noise whose variance is not known.

    Args:
        singular: All singular values, descending.
        rows: Of the matrix.
        columns: Of the matrix.

    Returns:
        The rank, 1 at least.

    >>> rng = np.random.default_rng(0)
    >>> low = rng.normal(size=(40, 3)) @ rng.normal(size=(3, 100))
    >>> noisy = low + 0.1 * rng.normal(size=low.shape)
    >>> evbmf_rank(np.linalg.svd(noisy, compute_uv=False), *noisy.shape)
    3
    """
    few, many = sorted((rows, columns))
    values = np.asarray(singular, dtype=np.float64)[:few]
    if len(values) < 2 or values[0] <= 0:
        return 1
    alpha = few / many
    tau = _TAU * math.sqrt(alpha)
    least = (1 + tau) * (1 + alpha / tau)  # of a squared value that stands out, in units of noise
    noise = _noise(values**2, few, many, alpha, least)
    return max(1, int(np.count_nonzero(values**2 > many * noise * least)))


def _noise(
    squares: npt.NDArray[np.float64], few: int, many: int, alpha: float, least: float
) -> float:
    """Find the variance of the noise that minimises the free energy."""
    from scipy.optimize import minimize_scalar  # slow to import

    most = float(squares.sum()) / (few * many)
    # At most so many values can stand out, so those after them are noise.
    first = max(0, min(math.ceil(few / (1 + alpha)) - 1, len(squares) - 1))
    rest = squares[first:]
    lower = max(float(rest[0]) / (many * least), float(rest.mean()) / many)
    if not 0 < lower < most:
        return most
    found: Any = minimize_scalar(
        _free_energy, args=(squares / many, alpha, least), bounds=(lower, most), method="bounded"
    )
    return float(found.x)


def _free_energy(
    noise: float, squares: npt.NDArray[np.float64], alpha: float, least: float
) -> float:
    x = np.maximum(squares / noise, np.finfo(float).tiny)
    above = x[x > least]
    tau = _tau(above, alpha)
    gain = np.log(tau + 1) + alpha * np.log(tau / alpha + 1) - tau
    return float((x - np.log(x)).sum() + gain.sum())


def _tau(x: npt.NDArray[np.float64], alpha: float) -> npt.NDArray[np.float64]:
    inner = x - (1 + alpha)
    return 0.5 * (inner + np.sqrt(np.maximum(inner**2 - 4 * alpha, 0.0)))
