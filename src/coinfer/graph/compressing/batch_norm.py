"""Batch norm: move the statistics of a compressed model to what its layers now make.

Chooses nothing, runs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from coinfer.graph.inference import mark
from coinfer.graph.initializers import Initializers
from coinfer.graph.operators import nodes_by_key
from coinfer.model.canonical import constant_tensor

__all__ = ["Statistics", "moved", "normalised_values"]

_STATISTICS = (3, 4)
"""Inputs of BatchNormalization: the running mean and variance."""


class Statistics(NamedTuple):
    """Mean and standard deviation of each channel of a value."""

    mean: npt.NDArray[np.float64]
    deviation: npt.NDArray[np.float64]


def normalised_values(model: ir.Model) -> Iterator[tuple[str, str]]:
    """Yield (key of the batch norm, name of the value that it normalises)."""
    for key, node in nodes_by_key(model).items():
        if node.op_type != "BatchNormalization" or len(node.inputs) < 5:
            continue
        value = node.inputs[0]
        given = [node.inputs[at] for at in _STATISTICS]
        stored = [None if each is None else constant_tensor(each) for each in given]
        if value is not None and value.name and None not in stored:
            yield key, value.name


def moved(
    model: ir.Model, before: Mapping[str, Statistics], after: Mapping[str, Statistics]
) -> ir.Model:
    """Return a copy whose batch norms make of `after` what they made of `before`.

    Running statistics are from more data than any calibration, so they are moved and scaled by
    what changed, and not replaced. Where nothing changed they stay.

    Args:
        model: The compressed model.
        before: Statistics of what the original's batch norms normalise, by their keys.
        after: Of what the compressed model's do.
    """
    mark(model)
    clone = model.clone()
    nodes, initializers = nodes_by_key(clone), Initializers(clone.graph)
    for key, new in after.items():
        node, old = nodes[key], before[key]
        means, variances = (constant_tensor(_given(node, at)) for at in _STATISTICS)
        assert means is not None
        assert variances is not None
        # A channel that does not vary on the samples says nothing of its scale.
        can_scale = (old.deviation > 1e-6) & (new.deviation > 1e-6)
        scale = np.divide(new.deviation, old.deviation, out=np.ones_like(old.mean), where=can_scale)
        mean = new.mean + (means.numpy().astype(np.float64) - old.mean) * scale
        variance = variances.numpy().astype(np.float64) * scale**2
        for at, array in zip(_STATISTICS, (mean, variance), strict=True):
            name = f"{key}.{'mean' if at == _STATISTICS[0] else 'variance'}.moved"
            replaced = _given(node, at)
            value = initializers.add(name, array.astype(means.dtype.numpy()))
            node.replace_input_with(at, value)
            initializers.drop_unused([replaced])
    return clone


def _given(node: ir.Node, at: int) -> ir.Value:
    value = node.inputs[at]
    assert value is not None
    return value
