"""Calibration: which samples are chosen with and which judge, and what layers see of the former."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from coinfer.backends.base import Backend, Tensors
from coinfer.backends.loading import load
from coinfer.errors import BackendError, InputError
from coinfer.graph.compressing.batch_norm import Statistics
from coinfer.graph.compressing.layer import Kind, Layer
from coinfer.graph.compressing.moments import Moments, Window
from coinfer.graph.exposed import exposed
from coinfer.graph.operators import MATRIX_PRODUCTS, inlined, nodes_by_key
from coinfer.graph.shapes import bind_shapes, static_shape
from coinfer.model import Model
from coinfer.profiling.reference import REFERENCE

__all__ = [
    "Samples",
    "bound_to",
    "moments_of",
    "outputs_of",
    "split",
    "statistics_of",
    "with_shapes",
]

MOST_CALIBRATION = 128
MOST_HELD_OUT = 64
MOST_TELLING = 8
"""So many samples tell the error of a choice: it is compared with others of the same samples."""
_PLACES = 16384
"""Of each layer, over all samples, so many places are looked at about."""


class Samples(NamedTuple):
    """Samples of one model.

    Attributes:
        calibration: What is chosen with.
        held_out: What judges; none of the others.

    >>> len(Samples([{}] * 24, []).shaping)
    16
    """

    calibration: Sequence[Tensors]
    held_out: Sequence[Tensors]

    @property
    def shaping(self) -> Sequence[Tensors]:
        """What shapes factors where their error is told by the first of `calibration`.

        None of the latter, if there are enough: factors fit what shaped them better than all else.
        """
        count = min(MOST_TELLING, len(self.calibration) // 3)
        return self.calibration if count < 2 else self.calibration[count:]


def split(feeds: Sequence[Tensors], name: str, *, seed: int) -> Samples:
    """Draw a third of the samples to judge with; the rest is chosen with.

    Raises:
        InputError: there is only one.
    """
    if len(feeds) < 2:
        raise InputError(
            f"model {name!r}: one sample is not enough to choose with and to judge by another one; "
            "give at least 2"
        )
    order = np.random.default_rng(seed).permutation(len(feeds))
    n_held_out = min(max(1, len(feeds) // 3), MOST_HELD_OUT)
    held_out, rest = order[:n_held_out], order[n_held_out:][:MOST_CALIBRATION]
    return Samples([feeds[at] for at in sorted(rest)], [feeds[at] for at in sorted(held_out)])


def bound_to(model: Model, feed: Tensors) -> ir.Model:
    """Return a model's graph with its shapes bound to the sizes of a sample."""
    sizes = model.input_check.sizes_of(feed)
    dims = {name: size for name, size in sizes.items() if name in model.open_dims}
    return bind_shapes(model.graph, dims=dims)


def outputs_of(model: Model, feeds: Iterable[Tensors], backend: Backend) -> list[Tensors]:
    """Run a model on samples, where outputs count as right."""
    return [dict(each) for each in _runs(model, feeds, backend)]


def moments_of(
    model: Model, layers: Iterable[Layer], feeds: Sequence[Tensors], backend: Backend, *, seed: int
) -> dict[str, Moments]:
    """Look at what layers see of samples; layers that are too wide for that are left out."""
    rng = np.random.default_rng(seed)
    nodes = nodes_by_key(inlined(model.graph))
    found = {layer.key: Moments(layer) for layer in layers if Moments.can_be_of(layer)}
    names = {key: _name(nodes[key].inputs[0]) for key in found}
    made = {key: _name(nodes[key].outputs[0]) for key, each in found.items() if each.made}
    most = max(16, _PLACES // max(1, len(feeds)))
    looked_at = _exposed(model, (*names.values(), *made.values()))
    for values in _runs(looked_at, feeds, backend, given=True):
        for key, moments in found.items():
            seen, layer = values[names[key]], moments.layer
            sizes = () if layer.kind is Kind.DENSE else seen.shape[2:]
            window = Window.of(nodes[key], layer, sizes)
            moments.add(window.patches(seen, layer.groups, most, rng))
            if moments.made is not None:
                moments.made.add(values[made[key]], most)
    return found


def with_shapes(model: Model, bound: ir.Model, feed: Tensors, backend: Backend) -> ir.Model:
    """Fill in what does not follow from the graph: the shapes around products, by running it once.

    Args:
        model: The model.
        bound: The same with its shapes bound, as far as they follow; it is changed.
        feed: A sample of the sizes that it is bound to.
        backend: Where it runs.
    """
    nodes = [node for node in bound.graph if node.op_type in MATRIX_PRODUCTS]
    around = {
        value.name: value
        for node in nodes
        for value in (*node.inputs, *node.outputs)
        if value is not None and value.name and static_shape(value) is None
    }
    if around:
        with suppress(BackendError):  # then less is known of what it costs
            for values in _runs(_exposed(model, around), [feed], backend, given=True):
                for name, value in around.items():
                    value.shape = ir.Shape(values[name].shape)
                    value.dtype = ir.DataType.from_numpy(values[name].dtype)
    return bound


def statistics_of(
    model: Model, names: Mapping[str, str], feeds: Sequence[Tensors], backend: Backend
) -> dict[str, Statistics]:
    """Return mean and deviation of each channel of some values, over all samples.

    Args:
        model: What makes the values.
        names: Of the values, by what they are called in the result.
        feeds: The samples.
        backend: Where it runs.
    """
    sums = {key: np.zeros(3, object) for key in names}
    for values in _runs(_exposed(model, names.values()), feeds, backend, given=True):
        for key, name in names.items():
            array = values[name].astype(np.float64)
            rows = np.moveaxis(array, 1, -1).reshape(-1, array.shape[1])
            sums[key] += np.array([len(rows), rows.sum(axis=0), (rows**2).sum(axis=0)], object)
    return {key: _statistics(*each) for key, each in sums.items()}


def _statistics(
    count: int, total: npt.NDArray[np.float64], squares: npt.NDArray[np.float64]
) -> Statistics:
    mean = total / count
    return Statistics(mean, np.sqrt(np.maximum(squares / count - mean**2, 0.0)))


def _runs(
    model: Model, feeds: Iterable[Tensors], backend: Backend, *, given: bool = False
) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Yield what a model makes of each sample, on demand with the sample itself."""
    with closing(load(backend, model, REFERENCE)) as session:
        for feed in feeds:
            made = session.run(feed)
            yield {**feed, **made} if given else dict(made)


def _exposed(model: Model, names: Iterable[str]) -> Model:
    """Return a model that gives these values too, of whatever rank; they are of float32."""
    given = {spec.name for spec in model.inputs}
    made = [name for name in dict.fromkeys(names) if name not in given]
    return exposed(model, made, otherwise=ir.DataType.FLOAT)


def _name(value: Any) -> str:
    return value.name or ""
