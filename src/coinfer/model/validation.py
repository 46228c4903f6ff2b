"""Check a graph against the rules of ONNX and read its specs. Opens no file.

Imported on first use: it needs `onnx` and `onnx_ir`, which are slow to import.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial

import numpy as np
import onnx
import onnx_ir as ir

from coinfer.errors import ModelError, first_line
from coinfer.model.data_file import DataFile
from coinfer.model.external import from_file
from coinfer.model.specs import TensorSpec

__all__ = [
    "check_graph",
    "check_versions",
    "dimension",
    "embed",
    "not_valid",
    "read_from",
    "skeleton",
    "spec_of",
    "tensors_of",
]

_OLDEST_IR_VERSION = 3
"""The first version with operator sets."""

_MOST_AXES = 64
"""Of numpy from version 2 on."""

_SMALL_BYTES = 1024

_NAMELESS = re.compile(r"\s*|\?+|none|-\d+|unk__\d+", re.IGNORECASE)
"""What exporters and ONNX's inference write for the size of which they know nothing."""

_DEFAULT_DOMAINS = ("", "ai.onnx")


def check_versions(ir_version: int, opsets: Mapping[str, int], name: str) -> None:
    """Check that the installed onnx knows the file format and all of its own operator sets.

    Domains that onnx does not define are left to the backends.

    Raises:
        ModelError: names the version, what is supported, and the remedy.
    """
    newest = int(onnx.IR_VERSION)
    if ir_version > newest:
        raise ModelError(
            f"{name}: ONNX IR version {ir_version} is newer than {newest}, the newest that the "
            f"installed onnx {onnx.__version__} reads; upgrade onnx or export with an older one"
        )
    if ir_version < _OLDEST_IR_VERSION:
        raise ModelError(
            f"{name}: ONNX IR version {ir_version} is older than {_OLDEST_IR_VERSION}, the first "
            f"with operator sets; the file may be damaged, otherwise export it again"
        )
    if not opsets:
        raise ModelError(
            f"{name}: no operator set is named; the file may be truncated, export it again"
        )
    known = _newest_opsets()
    for domain, version in opsets.items():
        newest = known.get(domain, version)
        if not 1 <= version <= newest:
            shown = "ai.onnx" if domain in _DEFAULT_DOMAINS else domain
            raise ModelError(
                f"{name}: unsupported opset {version} of {shown}; the installed onnx "
                f"{onnx.__version__} knows 1 to {newest}; upgrade onnx or export with opset "
                f"{newest} or older"
            )


@cache
def _newest_opsets() -> dict[str, int]:
    newest: dict[str, int] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        newest[schema.domain] = max(newest.get(schema.domain, 1), schema.since_version)
    # An opset that adds no operator has no schema with its number.
    newest[""] = newest["ai.onnx"] = int(onnx.defs.onnx_opset_version())
    return newest


def check_graph(ir_model: ir.Model, name: str) -> onnx.ModelProto:
    """Check a graph made in memory, without serializing its weights; return the rest serialized.

    Raises:
        ModelError: the first rule of ONNX that it breaks.
    """
    check_versions(ir_model.ir_version, ir_model.opset_imports, f"model {name!r}")
    try:
        clone = skeleton(ir_model)
        for value in clone.graph.outputs:
            if value.shape is None and isinstance(value.type, ir.TensorType):
                value.shape = ir.Shape([])  # the checker wants one, which nobody else needs
        proto: onnx.ModelProto = ir.to_proto(clone)
        onnx.checker.check_model(proto)
    except Exception as error:
        # Cloning, serializing and checking raise errors of different types.
        raise ModelError(f"model {name!r} is not a valid graph: {first_line(error)}") from error
    return proto


def skeleton(ir_model: ir.Model) -> ir.Model:
    """Clone the model with its large weights turned into inputs of the same dtype and shape.

    Small ones are in memory then, wherever they were: shapes and settings are among them.
    """
    clone = ir_model.clone()
    graph = clone.graph
    for key, value in tuple(graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.nbytes <= _SMALL_BYTES:
            continue
        del graph.initializers[key]
        value.const_value = None
        value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
        if not value.is_graph_input():
            graph.inputs.append(value)
    embed(clone)
    return clone


def embed(ir_model: ir.Model) -> None:
    """Read the tensors of a model that are in other files into memory; changes the model."""
    _exchange(ir_model, _in_memory)


def read_from(ir_model: ir.Model, files: Mapping[str, DataFile]) -> None:
    """Let the tensors that are in other files be read from those that were checked."""
    _exchange(ir_model, partial(from_file, files=files))


def _exchange(
    ir_model: ir.Model, replaced: Callable[[ir.TensorProtocol], ir.TensorProtocol]
) -> None:
    """Put other tensors in the place of a model's; changes the model."""
    for graph in _graphs(ir_model):
        for value in graph.initializers.values():
            if value.const_value is not None:
                value.const_value = replaced(value.const_value)
        for node in graph:
            for attr in tuple(node.attributes.values()):
                if attr.is_ref():
                    continue
                if attr.type == ir.AttributeType.TENSOR:
                    tensor = replaced(attr.as_tensor())
                    if tensor is not attr.value:
                        node.attributes[attr.name] = ir.AttrTensor(attr.name, tensor)
                elif attr.type == ir.AttributeType.TENSORS:
                    all_ = [replaced(tensor) for tensor in attr.as_tensors()]
                    node.attributes[attr.name] = ir.AttrTensors(attr.name, all_)


def _in_memory(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, shape=tensor.shape, name=tensor.name)


def tensors_of(ir_model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """Yield initializers and tensor attributes, those of subgraphs and functions too."""
    for graph in _graphs(ir_model):
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value.const_value
        for node in graph:
            for attr in node.attributes.values():
                if attr.type == ir.AttributeType.TENSOR and not attr.is_ref():
                    yield attr.as_tensor()
                elif attr.type == ir.AttributeType.TENSORS and not attr.is_ref():
                    yield from attr.as_tensors()


def _graphs(ir_model: ir.Model) -> Iterator[ir.Graph]:
    """Yield all graphs, those of functions and inside of nodes too."""
    for root in (ir_model.graph, *(function.graph for function in ir_model.functions.values())):
        yield root
        yield from root.subgraphs()


def spec_of(value: ir.Value, model: str, role: str) -> TensorSpec:
    """Read the spec of one input or output.

    Raises:
        ModelError: it is not a tensor or has no type, it has more axes than an array may have, or
            it is an input without a shape.
    """
    if not isinstance(value.type, ir.TensorType):
        found = "no type" if value.type is None else str(value.type)
        raise ModelError(
            f"model {model!r}: {role} {value.name!r} must be a tensor but has {found}; export the "
            f"model with tensors only"
        )
    if value.shape is None and role == "input":
        raise ModelError(
            f"model {model!r}: {role} {value.name!r} has no shape; run onnx.shape_inference on it "
            f"or declare the shape, with symbols for open sizes"
        )
    if value.shape is not None and len(value.shape) > _MOST_AXES:
        raise ModelError(
            f"model {model!r}: {role} {value.name!r} has {len(value.shape)} axes; no array has "
            f"more than {_MOST_AXES}, export the model with fewer"
        )
    try:
        dtype = np.dtype(value.type.dtype.numpy())
    except TypeError:
        raise ModelError(
            f"model {model!r}: {role} {value.name!r} has dtype {value.type.dtype}, which is not "
            f"usable; declare its dtype"
        ) from None
    return TensorSpec(
        name=value.name or "",
        dtype=dtype,
        shape=tuple(dimension(dim) for dim in value.shape or ()),
        rank_known=value.shape is not None,
    )


def dimension(dim: int | ir.SymbolicDim) -> int | str | None:
    """Read a dimension: its size, its symbol, or None if it is open and has no name.

    >>> [dimension(dim) for dim in ir.Shape([3, -1, "n", "?", "unk__12"])]
    [3, None, 'n', None, None]
    """
    if isinstance(dim, ir.SymbolicDim):
        nameless = dim.value is None or _NAMELESS.fullmatch(dim.value)
        return None if nameless else dim.value
    return dim if dim >= 0 else None  # exporters write -1 for an unknown size


def not_valid(what: str, error: BaseException) -> ModelError:
    """Return what to raise where a library refuses a file."""
    return ModelError(
        f"{what} is not a valid model: {first_line(error)}; it is damaged or was exported wrongly, "
        f"export it again"
    )
