"""Refitting: fit the last parts of decomposed layers to what the original's layers make.

In a compressed network a layer sees what others before it got wrong. So, from the inputs on, each
last part is fitted to what the original makes of the right inputs, and errors do not add up
(asymmetric reconstruction, Zhang et al., arXiv 1505.06798, section 3.3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from coinfer.backends.base import Backend, Tensors
from coinfer.graph.compressing.layers import Site, canonical, site_of
from coinfer.graph.inference import mark
from coinfer.graph.initializers import Initializers
from coinfer.graph.operators import nodes_by_key
from coinfer.model import Model
from coinfer.planner.compressing.calibration import outputs_of, values_of
from coinfer.planner.compressing.error import largest_error

__all__ = ["refitted"]

_PASSES: Final = 12
"""Layers are fitted in so many passes at most: those of one pass see each other as they were."""

_PLACES: Final = 65536
"""Of each layer, over all samples, so many places are fitted to about."""

_RIDGE: Final = 1e-3
"""Of the mean square: so strongly a part is held where it was."""

_Array = npt.NDArray[np.float64]


def refitted(
    original: Model,
    compressed: Model,
    keys: Iterable[str],
    feeds: Sequence[Tensors],
    backend: Backend,
) -> Model:
    """Return the compressed model, with other last parts if it errs less so.

    Args:
        original: Where the compressed model comes from.
        compressed: Its values have the names that they have there.
        keys: Layers that were decomposed, in the order of the graph.
        feeds: Calibration samples.
        backend: Where both run.
    """
    nodes = nodes_by_key(compressed.graph)
    fitted = [key for key in keys if _last_part(nodes[key]) is not None]
    model, size = compressed, -(-len(fitted) // _PASSES)
    for at in range(0, len(fitted), max(1, size)):
        model = _pass(original, model, fitted[at : at + size], feeds, backend)
    reference = outputs_of(original, feeds, backend)
    errors = [largest_error(outputs_of(m, feeds, backend), reference) for m in (compressed, model)]
    return model if errors[1] < errors[0] else compressed


def _last_part(node: ir.Node) -> Site | None:
    """Return the last part of a layer if it is a plain product at each place."""
    site = site_of(node)
    if isinstance(site, str):
        return None
    kernel = canonical(site).shape[3:]
    is_plain = all(size == 1 for size in (*kernel, *node.attributes.get_ints("strides", [1])))
    # What cannot be shifted is a MatMul, or has a bias that is not known.
    return site if is_plain and (site.takes_shift or node.op_type == "MatMul") else None


def _pass(
    original: Model, model: Model, keys: Sequence[str], feeds: Sequence[Tensors], backend: Backend
) -> Model:
    """Fit some layers."""
    nodes = nodes_by_key(model.graph)
    sites = {key: site for key in keys if (site := _last_part(nodes[key])) is not None}
    fits = {key: _Fit(canonical(site), shifts=site.takes_shift) for key, site in sites.items()}
    seen = {
        key: str(site.node.inputs[0] and site.node.inputs[0].name) for key, site in sites.items()
    }
    wanted = {key: str(site.node.outputs[0].name) for key, site in sites.items()}
    most = max(64, _PLACES // max(1, len(feeds)))
    runs = (
        values_of(model, seen.values(), feeds, backend),
        values_of(original, wanted.values(), feeds, backend),
    )
    for ours, theirs in zip(*runs, strict=True):
        for key, site in sites.items():
            axis = 1 if site.node.op_type == "Conv" else -1
            fits[key].add(ours[seen[key]], theirs[wanted[key]], axis, most)
    return model.with_graph(_replaced(model.graph, fits))


def _replaced(graph: ir.Model, fits: Mapping[str, _Fit]) -> ir.Model:
    """Return a copy with the parts that were fitted."""
    mark(graph)
    clone = graph.clone()
    nodes, initializers = nodes_by_key(clone), Initializers(clone.graph)
    for key, fit in fits.items():
        node = nodes[key]
        site = site_of(node)
        assert isinstance(site, Site)
        weight, bias = fit.solved()
        stored = site.weight.numpy()
        # The one group of a dense layer has (outputs, inputs), which may be stored the other way.
        flat = weight.reshape(-1, weight.shape[-1])
        is_turned = node.op_type != "Conv" and not site.is_transposed
        arrays: dict[int, npt.NDArray[Any]] = {1: (flat.T if is_turned else flat)}
        if bias is not None:
            arrays[2] = bias
            if len(node.inputs) < 3:
                node.resize_inputs(3)
        for at, array in arrays.items():
            before = node.inputs[at]
            shape = stored.shape if at == 1 else array.shape
            name = f"{key}.{'last' if at == 1 else 'bias'}.fitted"
            value = initializers.add(name, array.reshape(shape).astype(stored.dtype))
            node.replace_input_with(at, value)
            if before is not None:
                initializers.drop_unused([before])
    return clone


@dataclass(slots=True)
class _Fit:
    """A least-squares fit of a part, summed up over samples.

    Attributes:
        weight: (groups, outputs, inputs, *ones): where it begins, and is held a little.
        shifts: Whether there is a bias to fit.
    """

    weight: _Array
    shifts: bool
    _count: int = field(default=0, init=False)
    _sums: tuple[_Array, _Array] = field(init=False)
    _squares: _Array = field(init=False)
    _cross: _Array = field(init=False)

    def __post_init__(self) -> None:
        """Begin with nothing seen."""
        groups, outputs, inputs = self.weight.shape[:3]
        self.weight = self.weight.reshape(groups, outputs, inputs)
        self._sums = np.zeros((groups, inputs)), np.zeros((groups, outputs))
        self._squares = np.zeros((groups, inputs, inputs))
        self._cross = np.zeros((groups, inputs, outputs))

    def add(self, seen: npt.NDArray[Any], wanted: npt.NDArray[Any], axis: int, most: int) -> None:
        """Take in what the part sees and what it should make, whose channels are on this axis."""
        groups = len(self.weight)
        rows = [_rows(each, axis, groups, most) for each in (seen, wanted)]
        self._count += rows[0].shape[1]
        self._sums = self._sums[0] + rows[0].sum(axis=1), self._sums[1] + rows[1].sum(axis=1)
        self._squares += rows[0].transpose(0, 2, 1) @ rows[0]
        self._cross += rows[0].transpose(0, 2, 1) @ rows[1]

    def solved(self) -> tuple[_Array, _Array | None]:
        """Return the weight, (groups, outputs, inputs), and the bias, (all outputs), if any."""
        inputs, outputs = (each / max(1, self._count) for each in self._sums)
        squares, cross = self._squares / self._count, self._cross / self._count
        if self.shifts:
            squares = squares - inputs[:, :, np.newaxis] * inputs[:, np.newaxis, :]
            cross = cross - inputs[:, :, np.newaxis] * outputs[:, np.newaxis, :]
        size = squares.shape[1]
        level = np.trace(squares, axis1=1, axis2=2) / size
        held = (_RIDGE * level + 1e-12)[:, np.newaxis, np.newaxis] * np.eye(size)
        before = self.weight.transpose(0, 2, 1)
        found = np.linalg.solve(squares + held, cross + held @ before).transpose(0, 2, 1)
        if not self.shifts:
            return found, None
        return found, (outputs - np.einsum("goi,gi->go", found, inputs)).reshape(-1)


def _rows(values: npt.NDArray[Any], axis: int, groups: int, most: int) -> _Array:
    """Return places with their channels, (groups, places, channels of a group)."""
    rows = np.moveaxis(values, axis, -1)
    rows = rows.reshape(-1, groups, rows.shape[-1] // groups)
    evenly = np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(np.int64)
    return np.moveaxis(rows[evenly].astype(np.float64), 1, 0)
