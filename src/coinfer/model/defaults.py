"""Defaults: which initializers are the defaults of inputs that callers may give.

Imported on first use: it needs `onnx_ir`, which is slow to import.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnx_ir as ir

from coinfer.errors import ModelError
from coinfer.model.data_file import DataFile
from coinfer.model.external import from_file
from coinfer.model.specs import TensorSpec

__all__ = ["Defaults", "check_defaults", "take_from_graph", "take_from_message"]

_FIRST_IR_VERSION = 4
"""Before it every initializer had to be listed among the inputs, so that says nothing."""

_WEIGHTS: Mapping[str, range] = {
    "BatchNormalization": range(1, 5),
    "Conv": range(1, 3),
    "ConvInteger": range(1, 2),
    "ConvTranspose": range(1, 3),
    "DequantizeLinear": range(3),
    "GRU": range(1, 4),
    "Gather": range(1),
    "Gemm": range(1, 3),
    "GroupNormalization": range(1, 3),
    "InstanceNormalization": range(1, 3),
    "LSTM": range(1, 4),
    "LayerNormalization": range(1, 3),
    "MatMul": range(2),
    "MatMulInteger": range(2),
    "PRelu": range(1, 2),
    "QLinearConv": range(1, 9),
    "QLinearMatMul": range(1, 8),
    "RNN": range(1, 4),
}
"""Where operators read weights."""

_Use = tuple[str, int, str]
"""An operator's type, a position among its inputs, and the value that it reads there."""


class Defaults(NamedTuple):
    """What became of the inputs that have an initializer.

    Attributes:
        values: The defaults of inputs that may be given or left out; the graph does not hold them
            any more.
        fixed: Inputs that stay constants, because the file lists its weights among the inputs.
    """

    values: Mapping[str, np.ndarray[Any, Any]]
    fixed: frozenset[str]


def take_from_message(proto: onnx.ModelProto, files: Mapping[str, DataFile]) -> Defaults:
    """Take the defaults out of a valid file's initializers.

    So every library sees an input like any other, and the caller's value reaches it.

    Args:
        proto: It is changed: an input whose default is taken has a shape then, and no initializer.
        files: The files with external data, which were checked, by location.
    """
    graph = proto.graph
    given = {info.name: info for info in graph.input}
    stored = [tensor.name for tensor in graph.initializer]
    settable, fixed = _sorted_out(proto.ir_version, given, stored, _uses(graph))
    if not settable:
        return Defaults({}, fixed)
    values = {}
    for index in reversed(range(len(stored))):
        if stored[index] not in settable:
            continue
        tensor = from_file(ir.serde.deserialize_tensor(graph.initializer[index]), files)
        shape = given[stored[index]].type.tensor_type.shape
        if not given[stored[index]].type.tensor_type.HasField("shape"):
            shape.SetInParent()
            shape.dim.extend(
                onnx.TensorShapeProto.Dimension(dim_value=size) for size in tensor.shape.numpy()
            )
        values[stored[index]] = _read(tensor)
        del graph.initializer[index]
    return Defaults({name: values[name] for name in given if name in values}, fixed)


def take_from_graph(model: ir.Model) -> Defaults:
    """Take the defaults out of a valid graph's initializers, as `take_from_message` does."""
    graph = model.graph
    given = {value.name or "": value for value in graph.inputs}
    uses = (
        (use.node.op_type, use.idx, name) for name, value in given.items() for use in value.uses()
    )
    ir_version = model.ir_version or _FIRST_IR_VERSION
    settable, fixed = _sorted_out(ir_version, given, list(graph.initializers), uses)
    values = {}
    for name in (name for name in given if name in settable):
        value, tensor = given[name], given[name].const_value
        assert tensor is not None  # it is an initializer
        values[name] = _read(tensor)
        value.shape = value.shape or ir.Shape(tensor.shape.numpy())
        del graph.initializers[name]
        value.const_value = None
    return Defaults(values, fixed)


def check_defaults(
    defaults: Mapping[str, np.ndarray[Any, Any]], specs: Iterable[TensorSpec], what: str
) -> None:
    """Check that defaults are of the dtype and shape that their inputs state.

    Raises:
        ModelError: names the first one that is not.
    """
    for spec in specs:
        if spec.name in defaults:
            default = defaults[spec.name]
            if default.dtype != spec.dtype or not spec.takes_shape(default.shape):
                raise ModelError(
                    f"{what}: input {spec.name!r} takes {spec.layout} but its default is "
                    f"{default.dtype}{list(default.shape)}; export it again"
                )


def _sorted_out(
    ir_version: int, given: Collection[str], stored: Collection[str], uses: Iterable[_Use]
) -> tuple[frozenset[str], frozenset[str]]:
    """Tell which of the inputs with an initializer may be given, and which are constants.

    Old exporters list all weights among the inputs, and tools that edit such files may add some
    initializers that are not. Libraries must know weights to prepare them. So if the inputs hold
    more weights than there are other initializers, the file lists its weights.

    Returns:
        The names of the ones and of the others; one of the two is empty.
    """
    both = frozenset(stored).intersection(given)
    if not both:
        return both, both
    weights = {name for op, at, name in uses if name in both and at in _WEIGHTS.get(op, ())}
    lists_weights = len(weights) > len(stored) - len(both)
    if ir_version < _FIRST_IR_VERSION or lists_weights:
        return frozenset(), both
    return both, frozenset()


def _uses(graph: onnx.GraphProto) -> Iterator[_Use]:
    for node in graph.node:
        yield from ((node.op_type, at, name) for at, name in enumerate(node.input))
        for attr in node.attribute:
            for inner in (attr.g, *attr.graphs):
                yield from _uses(inner)


def _read(tensor: ir.TensorProtocol) -> np.ndarray[Any, Any]:
    """Return a tensor as an array of its own that nobody can change."""
    if tensor.dtype == ir.DataType.STRING:
        texts = [text.decode() for text in tensor.string_data()]  # type: ignore[attr-defined]
        array = np.array(texts, dtype=object).reshape(tensor.shape.numpy())
    else:
        array = np.array(tensor.numpy(), order="C")
    array.flags.writeable = False
    return array
