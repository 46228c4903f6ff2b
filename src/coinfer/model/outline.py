"""Outline: a graph without its large weights, to ask whether inputs of some sizes fit it.

Knows ONNX shape inference; runs nothing and opens no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

__all__ = ["Outline", "outline_of"]

_SMALL_BYTES = 1024
_MOST_ANSWERS = 256

_MOST_BYTES = 2**24
"""Weights may also be attributes of operators; then an outline would not pay."""

Shapes = Mapping[str, tuple[int, ...]]
"""Sizes of inputs by name."""


class Outline:
    """What of a graph its shapes follow from, serialized. Any thread may ask.

    Args:
        data: A `ModelProto` whose large weights are inputs, and that claims no shapes of values.
    """

    __slots__ = ("_answers", "_data", "warned")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._answers: dict[tuple[tuple[str, tuple[int, ...]], ...], bool] = {}
        self.warned = False
        """Whether somebody was told that inputs have sizes that the model does not foresee."""

    def __reduce__(self) -> tuple[type[Outline], tuple[bytes]]:
        """Be copied and pickled as what it was made from."""
        return Outline, (self._data,)

    def fits(self, shapes: Shapes) -> bool:
        """Return whether no operator contradicts these shapes of all inputs."""
        key = tuple(shapes.items())
        known = self._answers.get(key)
        if known is None:
            if len(self._answers) >= _MOST_ANSWERS:
                self._answers.clear()
            known = self._answers[key] = self._infers(shapes)
        return known

    def _infers(self, shapes: Shapes) -> bool:
        import onnx

        proto = onnx.ModelProto.FromString(self._data)
        for info in proto.graph.input:
            if info.name in shapes:
                shape = info.type.tensor_type.shape
                for dim, size in zip(shape.dim, shapes[info.name], strict=True):
                    dim.dim_value = size
        try:
            onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
        except Exception:  # noqa: BLE001 - the library's errors have no common type
            return False
        return True


def outline_of(proto: onnx.ModelProto) -> Outline | None:
    """Leave out of a valid file what shapes do not follow from; None if much remains."""
    import onnx

    if sum(part.ByteSize() for part in (*proto.graph.node, *proto.functions)) > _MOST_BYTES:
        return None
    kept = onnx.ModelProto(
        ir_version=proto.ir_version, opset_import=proto.opset_import, functions=proto.functions
    )
    graph = kept.graph
    graph.name = proto.graph.name
    graph.node.extend(proto.graph.node)
    stored = {tensor.name for tensor in proto.graph.initializer}
    graph.input.extend(info for info in proto.graph.input if info.name not in stored)
    for tensor in proto.graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL and tensor.ByteSize() <= _SMALL_BYTES:
            graph.initializer.append(tensor)
        else:
            shape = tuple(tensor.dims)
            graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, shape)
            )
    for info in proto.graph.output:
        claim = graph.output.add()
        claim.CopyFrom(info)
        if claim.type.HasField("tensor_type"):
            claim.type.tensor_type.ClearField("shape")
    return Outline(kept.SerializeToString())
