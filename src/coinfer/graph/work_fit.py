"""Work fit: find how a model's work grows with its open dimensions, by counting at some sizes.

Rule: arithmetic and bytes of convolutions, products and attention are polynomials of the sizes, of
at most the second degree in each (attention over a sequence is the square of its length). So they
are counted, by the roofline of `graph.shares`, at one, two and three times the sizes of the sample,
and the polynomial through these points is kept. Nothing is run.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from coinfer.errors import CoinferError
from coinfer.graph.cost import operator_costs
from coinfer.graph.shares import work_of
from coinfer.model import Model
from coinfer.model.inputs import open_axes
from coinfer.plan.work import Axis, Work

__all__ = ["fit_work"]

_FULL = 2
"""With at most so many open dimensions all products of their squares are fitted."""

_MOST_DIMS = 6
"""Of models with more open dimensions the bytes of the inputs are the work."""

_NEGLIGIBLE = 1e-6


def fit_work(model: Model, samples: Sequence[Mapping[str, int]]) -> Work:
    """Fit the work of one sample to the sizes of the open dimensions.

    Args:
        model: A model with open dimensions other than the batch.
        samples: Sizes of all of these, by name, of each sample.

    Returns:
        The work; its base is the least among the samples. If nothing can be counted it is the
        number of elements of the inputs.

    >>> from coinfer.testing.models import model_from_text
    >>> attention = model_from_text('''a (float[N,S,64] x) => (float[N,S,64] y)
    ... { t = Transpose<perm=[0,2,1]>(x)  s = MatMul(x, t)  y = MatMul(s, x) }''', name="a")
    >>> work = fit_work(attention, [{"S": 512}])
    >>> [round(work.ratio({"S": size})) for size in (512, 1024, 2048)]
    [1, 4, 15]
    """
    axes = {name: Axis(*place) for name, place in model.open_dims.items()}
    middle = {name: max(1, *(sample[name] for sample in samples)) for name in axes}
    terms = _counted(model.graph, middle) if len(axes) <= _MOST_DIMS else None
    work = Work(axes, terms or _elements(model))
    base = min(work.at(sample) for sample in samples)
    return Work(axes, work.terms, base if base > 0 else 1.0)


def _counted(graph: ir.Model, middle: Mapping[str, int]) -> dict[tuple[str, ...], float] | None:
    """Fit a polynomial to what is counted; None if that does not grow or cannot be counted."""
    names = list(middle)
    exponents = _exponents(len(names))
    points = [tuple(1 + power for power in powers) for powers in exponents]
    try:
        counts = [
            work_of(
                operator_costs(
                    graph, dims={n: middle[n] * times for n, times in zip(names, at, strict=True)}
                )
            )
            for at in points
        ]
    except (CoinferError, ValueError):
        return None
    if max(counts) <= counts[0]:
        return None
    matrix = np.array([[_product(at, powers) for powers in exponents] for at in points])
    solved = np.linalg.solve(matrix, np.array(counts))
    found = {}
    for powers, factor in zip(exponents, solved, strict=True):
        if abs(factor) > _NEGLIGIBLE * counts[0]:
            scale = _product([middle[name] for name in names], powers)
            product = tuple(n for n, p in zip(names, powers, strict=True) for _ in range(p))
            found[product] = float(f"{factor / scale:.6g}")
    return found


def _product(sizes: Sequence[int], powers: Sequence[int]) -> float:
    return float(math.prod(size**power for size, power in zip(sizes, powers, strict=True)))


def _exponents(count: int) -> list[tuple[int, ...]]:
    """List the powers of the dimensions in each term; at powers plus one is where to count."""
    full = list(itertools.product(range(3), repeat=count))
    return full if count <= _FULL else [powers for powers in full if sum(powers) <= _FULL]


def _elements(model: Model) -> dict[tuple[str, ...], float]:
    """Return the number of elements of all inputs of one sample as terms."""
    terms: dict[tuple[str, ...], float] = {}
    for spec in model.inputs:
        names = dict(open_axes(spec))
        product = tuple(sorted(name for name in names.values() if name != model.batch_symbol))
        fixed = math.prod(dim for dim in spec.shape if isinstance(dim, int))
        terms[product] = terms.get(product, 0.0) + fixed
    return terms
