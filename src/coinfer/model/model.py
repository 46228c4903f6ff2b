"""Model: a validated ONNX graph in memory, its specs and its fingerprint. Knows no backend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from coinfer.errors import ModelError
from coinfer.model import inputs as _inputs
from coinfer.model.fingerprint import Fingerprint
from coinfer.model.specs import TensorSpec
from coinfer.units import format_bytes

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["PROTOBUF_LIMIT_BYTES", "Model", "model_from_ir", "wrap"]

PROTOBUF_LIMIT_BYTES = 2**31 - 1
"""No protobuf message can be larger, so no ONNX file without external data can."""

_NO_DIMS: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Model:
    """A validated model. It never changes: a transform clones `graph` and makes a new `Model`.

    Attributes:
        name: What requests and messages call it.
        graph: The graph and its weights; external weights are mapped from their file on use.
        inputs: Specs of the inputs that a caller gives; initializers are left out.
        outputs: Specs of the outputs.
        fingerprint: Identity of structure and weights.
        source: File that it was loaded from, or None if it was made in memory.
        borders: Of a part of a model, the inputs and outputs that only other parts of it give and
            read; nobody else looks at them.
    """

    name: str
    graph: ir.Model
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    fingerprint: Fingerprint
    source: Path | None = None
    borders: frozenset[str] = frozenset()
    _check: _inputs.InputCheck = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_check", _inputs.InputCheck.of(self.name, self.inputs))

    @property
    def batch_symbol(self) -> str | None:
        """Symbol of the batch axis: it leads every input whose first axis is open.

        None for a model whose inputs have no open first axis, or different ones.
        """
        return self._check.batch

    @property
    def weight_bytes(self) -> int:
        """Bytes of all initializers and constants, as stored."""
        return sum(tensor.nbytes for tensor in _tensors(self.graph))

    def check_inputs(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> int:
        """Check the inputs of one request: names, dtypes, shapes, equal sizes of equal symbols.

        Returns:
            The batch size: the size of `batch_symbol`, or 1 if there is none.

        Raises:
            InputError: names the model, the input, what it takes, what it got, and the remedy.
        """
        return self._check(inputs)

    def sample_inputs(
        self, *, batch: int = 1, seed: int = 0, dims: Mapping[str, int] = _NO_DIMS
    ) -> dict[str, np.ndarray[Any, Any]]:
        """Make random inputs that fit: standard normal floats, integers and booleans 0 or 1.

        The model's metadata may say how large integers get: the property
        `coinfer.input.NAME.high` is the bound that they stay below.

        Args:
            batch: Size of the batch axis; a model without one ignores it.
            seed: Equal seeds give equal inputs.
            dims: Sizes of further open dimensions by symbol; a nameless one is `"input:axis"`.

        Raises:
            InputError: an open dimension was not given, is unknown, or is below 1.
            ModelError: an input takes strings.
        """
        return _inputs.sample_inputs(
            self._check, batch=batch, seed=seed, dims=dims, highs=self._integer_bounds()
        )

    def to_bytes(self) -> bytes:
        """Serialize as one ONNX `ModelProto` that refers to no other file.

        Raises:
            ModelError: it would exceed the 2 GiB that a protobuf message can hold.
        """
        import onnx_ir as ir
        from google.protobuf.message import EncodeError  # type: ignore[import-untyped]

        size = self.weight_bytes
        if size > PROTOBUF_LIMIT_BYTES:
            raise self._too_large(size)
        try:
            data: bytes = ir.to_proto(_embedded(self.graph)).SerializeToString()
        except (EncodeError, ValueError):
            if size < PROTOBUF_LIMIT_BYTES // 2:
                raise
            raise self._too_large(size) from None
        return data

    def _integer_bounds(self) -> dict[str, int]:
        texts = {
            spec.name: self.graph.metadata_props.get(f"coinfer.input.{spec.name}.high", "")
            for spec in self.inputs
        }
        return {name: int(text) for name, text in texts.items() if text.isdecimal()}

    def _too_large(self, size: int) -> ModelError:
        return ModelError(
            f"model {self.name!r} takes {format_bytes(size)} as one message but protobuf holds "
            f"at most 2 GiB; convert its weights to float16 or load it from its file"
        )


def model_from_ir(ir_model: ir.Model, *, name: str, source: Path | None = None) -> Model:
    """Validate a graph made in memory and wrap it.

    The model takes the graph over: do not change it afterwards, clone it first.

    Args:
        ir_model: The graph with its weights.
        name: What requests and messages call it.
        source: The file that holds exactly this graph, if there is one.

    Raises:
        ModelError: the graph breaks the rules of ONNX or has inputs that are not tensors.
    """
    from coinfer.model import validation

    validation.check_graph(ir_model, name)
    return wrap(ir_model, name=name, source=source)


def wrap(ir_model: ir.Model, *, name: str, source: Path | None) -> Model:
    """Read specs and fingerprint of a graph that was checked before."""
    from coinfer.model import validation
    from coinfer.model.canonical import fingerprint_of

    return Model(
        name=name,
        graph=ir_model,
        inputs=validation.input_specs(ir_model, name),
        outputs=validation.output_specs(ir_model, name),
        fingerprint=fingerprint_of(ir_model, name),
        source=source,
    )


def _tensors(ir_model: ir.Model) -> Iterator[ir.TensorProtocol]:
    from coinfer.model.validation import tensors_of

    return tensors_of(ir_model)


def _embedded(ir_model: ir.Model) -> ir.Model:
    """Return the model itself, or a clone with its external weights read into memory."""
    import onnx_ir as ir

    if not any(isinstance(tensor, ir.ExternalTensor) for tensor in _tensors(ir_model)):
        return ir_model
    clone = ir_model.clone()
    for graph in clone.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = _in_memory(value.const_value)
    for graph in (*clone.graphs(), *(f.graph for f in clone.functions.values())):
        for node in graph.all_nodes():
            for attr in tuple(node.attributes.values()):
                if isinstance(attr.value, ir.ExternalTensor):
                    node.attributes[attr.name] = ir.AttrTensor(attr.name, _in_memory(attr.value))
    return clone


def _in_memory(tensor: ir.ExternalTensor) -> ir.TensorProtocol:
    import onnx_ir as ir

    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, shape=tensor.shape, name=tensor.name)
