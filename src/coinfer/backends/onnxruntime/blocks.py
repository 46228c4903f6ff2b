"""Blocks: edit graphs so that values cross their borders in ONNX Runtime's blocks of channels.

The CPU provider (`NchwcTransformer`) rewrites convolutions and what is around them to work on
blocks of 8 or 16 channels, with operators of its own domain, and puts `ReorderInput` and
`ReorderOutput` at the edges. An input of the graph is never in blocks, so an operator that adds one
to a blocked value falls back to the plain order. Therefore a convolution that changes nothing
(a probe) is put behind each input before the graph is rewritten, and removed afterwards. Knows
graphs; runs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from coinfer.graph.initializers import Initializers
from coinfer.model import Model, TensorSpec

__all__ = ["DOMAIN", "Blocked", "blockable", "probed", "without_probes"]

DOMAIN = "com.microsoft.nchwc"
"""Of the operators on blocks; the library reads it but does not promise to."""

_PROBE = "/coinfer.probe"
_PLAIN = "/coinfer.plain"

_CHANNEL_ALIGNMENT = 4
"""`ReorderInput` takes multiples of it only."""


class Blocked(NamedTuple):
    """A graph some of whose inputs and outputs are in blocks, with the channels that these have.

    Attributes:
        model: The graph; it must be loaded as it is.
        takes: True number of channels by input.
        gives: True number of channels by output.
    """

    model: ir.Model
    takes: dict[str, int]
    gives: dict[str, int]


def blockable(model: Model) -> tuple[list[str], list[str]]:
    """Return the inputs and outputs of a part that may cross its borders in blocks.

    None, if it has no convolution: nothing else is so much faster on blocks that it would pay to
    bring its inputs into them.
    """
    if not any(node.op_type == "Conv" for node in model.graph.graph):
        return [], []
    return (
        [spec.name for spec in model.inputs if _may_be_blocked(spec, model)],
        [spec.name for spec in model.outputs if _may_be_blocked(spec, model)],
    )


def _may_be_blocked(spec: TensorSpec, model: Model) -> bool:
    if spec.name not in model.borders or spec.dtype != np.float32 or len(spec.shape) != 4:
        return False
    channels = spec.shape[1]
    return isinstance(channels, int) and channels > 0 and channels % _CHANNEL_ALIGNMENT == 0


def probed(model: ir.Model, names: Iterable[str]) -> ir.Model:
    """Copy a graph, with a convolution that changes nothing behind each of these inputs.

    What it makes is an output of the graph as well, so that nothing is fused into it.
    """
    clone = model.clone()
    graph, initializers = clone.graph, Initializers(clone.graph)
    inputs = {value.name: value for value in graph.inputs}
    for name in names:
        value = inputs[name]
        assert value.shape is not None
        channels = value.shape[1]
        assert isinstance(channels, int)
        ones = np.ones((channels, 1, 1, 1), np.float32)
        weight = initializers.add(f"{name}{_PROBE}.w", ones)
        behind = ir.Value(name=f"{name}{_PROBE}", type=value.type, shape=ir.Shape(value.shape))
        value.replace_all_uses_with(behind)
        probe = ir.node("Conv", [value, weight], {"group": channels}, outputs=[behind])
        graph.insert_before(graph[0], probe)
        graph.outputs.append(behind)
    return clone


def without_probes(
    model: ir.Model, inputs: Sequence[str], outputs: Iterable[str], *, block: int
) -> Blocked | None:
    """Take the probes out of a graph that was rewritten, and the edges off where blocks may cross.

    Args:
        model: What the library made of a graph with probes; it is changed.
        inputs: Those with a probe.
        outputs: Those that may be in blocks.
        block: Channels in a block.

    Returns:
        None if the library made something of it that is not known here.
    """
    graph = model.graph
    takes: dict[str, int] = {}
    gives: dict[str, int] = {}
    by_name = {value.name: value for value in (*graph.inputs, *graph.outputs)}
    for name in inputs:
        behind = by_name.get(f"{name}{_PROBE}")
        if behind is None or name not in by_name:
            return None
        graph.outputs.remove(behind)
        found = _take_probe_out(graph, by_name[name], behind)
        if found is None:
            return None
        if found:
            takes[name] = _in_blocks(by_name[name], block)
    for name in outputs:
        channels = _take_edge_off(graph, by_name[name], block)
        if channels is not None:
            gives[name] = channels
    Initializers(graph).drop_unused(list(graph.initializers.values()))
    return Blocked(model, takes, gives)


def _take_probe_out(graph: ir.Graph, value: ir.Value, behind: ir.Value) -> bool | None:
    """Return whether the input is in blocks now; None if what is there is not known."""
    first = _only_reader(value)
    if first is None:
        return None
    if (first.domain, first.op_type) == ("", "Conv") and first.outputs[0] is behind:
        behind.replace_all_uses_with(value)  # it was not rewritten
        graph.remove(first, safe=True)
        return False
    probe = _only_reader(first.outputs[0])
    edge = behind.producer()
    if (
        probe is None
        or edge is None
        or not _is_edge(first, "ReorderInput")
        or not _is_edge(edge, "ReorderOutput")
        or (probe.domain, probe.op_type) != (DOMAIN, "Conv")
        or "activation" in probe.attributes
        or len([given for given in probe.inputs if given is not None]) > 2
        or edge.inputs[0] is not probe.outputs[0]
    ):
        return None
    readers = {node for node in probe.outputs[0].consumers() if node is not edge}
    is_read = bool(readers)
    if is_read:
        probe.outputs[0].replace_all_uses_with(value)
    else:  # in the plain order only, and it comes in this way
        behind.replace_all_uses_with(value)
    if not behind.uses():
        graph.remove(edge, safe=True)
    graph.remove([probe, first], safe=True)
    return is_read


def _take_edge_off(graph: ir.Graph, value: ir.Value, block: int) -> int | None:
    """Let a graph give what is before the edge; return its channels, or None if there is none."""
    edge = value.producer()
    if edge is None or not _is_edge(edge, "ReorderOutput"):
        return None
    blocked = edge.inputs[0]
    if blocked is None or blocked.is_graph_input() or blocked.is_graph_output():
        return None
    at = list(graph.outputs).index(value)
    graph.outputs[at] = blocked
    value.name, blocked.name = f"{value.name}{_PLAIN}", value.name
    blocked.type = value.type
    blocked.shape = None if value.shape is None else ir.Shape(value.shape)
    if not value.uses():
        graph.remove(edge, safe=True)
    return _in_blocks(blocked, block)


def _in_blocks(value: ir.Value, block: int) -> int:
    """Declare that a value of the graph's border is in blocks; return its true channels."""
    assert value.shape is not None
    batch, channels, height, width = value.shape
    assert isinstance(channels, int)
    value.shape = ir.Shape([batch, -(-channels // block) * block, height, width])
    return channels


def _only_reader(value: ir.Value) -> ir.Node | None:
    uses = value.uses()
    return next(iter(uses)).node if len(uses) == 1 else None


def _is_edge(node: ir.Node, op_type: str) -> bool:
    last = node.attributes.get("channels_last")
    in_order = last is None or last.as_int() == 0
    return (node.domain, node.op_type) == (DOMAIN, op_type) and in_order
