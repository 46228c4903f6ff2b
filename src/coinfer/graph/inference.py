"""Inference: the shapes that follow from a graph's inputs, operators and weights.

What a file states of the values between them is a claim: it is looked at last. Opens no file.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import onnx
import onnx_ir as ir

from coinfer.model.specs import TensorSpec, text_of_shape
from coinfer.model.validation import dimension, not_valid, skeleton, spec_of

__all__ = ["border_specs", "infer_shapes", "made_values", "mark"]

_log = logging.getLogger(__name__)

_SAID: Final = "coinfer.claims_contradict"
"""Where a graph and its clones keep whether somebody was told."""

_HANDED_OVER: Final = frozenset(
    {
        *("BOOL", "STRING", "FLOAT16", "FLOAT", "DOUBLE"),
        *("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"),
    }
)
"""What arrays can hold and every library takes and gives. bfloat16 and narrower types cannot."""

_Dims = tuple[int | str | None, ...]


class _Claim(NamedTuple):
    """What a file states of a value that an operator makes, and what of its shape is believed."""

    value: ir.Value
    type: ir.TypeProtocol | None
    dims: _Dims | None
    believed: _Dims | None


def mark(model: ir.Model) -> None:
    """Let all clones of a model be one model to `infer_shapes`, which warns once of each."""
    model.graph.meta.setdefault(_SAID, [])


def infer_shapes(model: ir.Model, *, believe_sizes: bool) -> None:
    """Give each value the type and shape that follow from the graph's inputs.

    Where nothing follows, as behind operators that ONNX does not know, what the file claims is
    taken, unless it contradicts what is known. Contradictions are logged once per model. Dimensions
    without a name stay without one.

    Args:
        model: It is changed; its weights are not read, but for small ones.
        believe_sizes: Take sizes from claims too. Otherwise only ranks and symbols are taken, and
            claimed sizes count as unknown: they may be those of another batch.
    """
    for value in model.graph.inputs:
        _set_dims(value, _dims_of(value))
    claims = list(_taken_claims(model.graph, believe_sizes))
    _infer(model, nested_claims=False)
    for frontier in (True, False):
        missing = [claim for claim in claims if _is_missing(claim)]
        if not missing:
            break
        _believe(_first_unknown(missing) if frontier else missing)
        _infer(model, nested_claims=True)
    wrong = [claim for claim in claims if not _complete(claim)]
    if wrong:
        _warn(model.graph, wrong[0])


def border_specs(model: ir.Model) -> dict[str, TensorSpec]:
    """Infer which values are tensors of known rank and of a dtype that numpy has, and their specs.

    Args:
        model: A valid model without functions of its own; it is not changed, and its weights are
            not read.

    Raises:
        ModelError: it is not valid.

    Returns:
        Specs by name. Sequences, optionals and what has no known rank are left out. A size that
        does not follow from the inputs is unknown, whatever the file claims.

    >>> model = ir.from_onnx_text('''<ir_version: 10, opset_import: ["": 20]>
    ... g (float[n, 3] x) => (float[n, 3] y) { a = Relu(x)  y = Exp(a) }''')
    >>> str(border_specs(model)["a"])
    'a: float32[n,3]'
    """
    mark(model)
    try:
        copy = model.clone()
        infer_shapes(copy, believe_sizes=False)
    except Exception as error:
        # Cloning, serializing and inferring raise errors of many types.
        raise not_valid(f"graph {model.graph.name!r}", error) from error
    graph = copy.graph
    specs = [
        spec_of(value, graph.name or "", "value")
        for value in (*graph.inputs, *made_values(graph), *graph.outputs)
        if isinstance(value.type, ir.TensorType)
        and value.type.dtype.name in _HANDED_OVER
        and value.shape is not None
    ]
    return {spec.name: spec for spec in specs}


def made_values(graph: ir.Graph) -> Iterator[ir.Value]:
    """Yield what the operators of the main graph make; a left-out optional output has no name."""
    for node in graph:
        yield from (value for value in node.outputs if value.name)


def _taken_claims(graph: ir.Graph, believe_sizes: bool) -> Iterator[_Claim]:
    """Take away what is claimed of the values that operators make."""
    for value in made_values(graph):
        dims = _dims_of(value)
        if value.type is not None or dims is not None:
            believed = dims
            if dims is not None and not believe_sizes:
                believed = tuple(None if isinstance(dim, int) else dim for dim in dims)
            yield _Claim(value, value.type, dims, believed)
        value.shape = None
        if not value.is_graph_output():  # an output needs a type
            value.type = None


def _infer(model: ir.Model, *, nested_claims: bool) -> None:
    """Infer what follows from what is there, and keep what is there where nothing follows."""
    proto = ir.to_proto(skeleton(model))
    if not nested_claims:
        for node in proto.graph.node:
            _drop_nested_claims(node)
    # Not strict: if one operator cannot be inferred, only its own outputs stay unknown. If all of
    # the inference fails, nothing follows; its errors have no common type.
    with contextlib.suppress(Exception):
        proto = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    values = {value.name: value for value in made_values(model.graph)}
    for info in (*proto.graph.value_info, *proto.graph.output):
        value = values.get(info.name)
        if value is not None and info.HasField("type"):
            found = ir.serde.deserialize_value_info_proto(info, None)
            value.type = found.type
            _set_dims(value, _dims_of(found))


def _drop_nested_claims(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        for graph in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
            del graph.value_info[:]
            for output in graph.output:
                if output.type.HasField("tensor_type"):
                    output.type.tensor_type.ClearField("shape")
            for inner in graph.node:
                _drop_nested_claims(inner)


def _is_missing(claim: _Claim) -> bool:
    return claim.value.type is None or (claim.value.shape is None and claim.dims is not None)


def _first_unknown(missing: Sequence[_Claim]) -> list[_Claim]:
    """Of what is missing, what is made from known values alone: the rest may follow from it."""
    values = {claim.value for claim in missing}
    return [
        claim
        for claim in missing
        if (node := claim.value.producer()) is not None and values.isdisjoint(node.inputs)
    ]


def _believe(claims: Iterable[_Claim]) -> None:
    for claim in claims:
        if claim.value.type is None:
            claim.value.type = claim.type
        if claim.value.shape is None:
            _set_dims(claim.value, claim.believed)


def _complete(claim: _Claim) -> bool:
    """Fill dimensions of which nothing is known; return whether the claim does not contradict."""
    known = _dims_of(claim.value)
    if known is None or claim.dims is None or claim.believed is None:
        return True
    if len(known) != len(claim.dims) or any(map(_differ, known, claim.dims)):
        return False
    pairs = zip(known, claim.believed, strict=True)
    _set_dims(claim.value, tuple(c if k is None else k for k, c in pairs))
    return True


def _differ(known: int | str | None, claimed: int | str | None) -> bool:
    """Whether a size is claimed that is another one, or is open."""
    return isinstance(claimed, int) and known is not None and known != claimed


def _dims_of(value: ir.Value) -> _Dims | None:
    return None if value.shape is None else tuple(dimension(dim) for dim in value.shape)


def _set_dims(value: ir.Value, dims: _Dims | None) -> None:
    value.shape = None if dims is None else ir.Shape(dims)


def _warn(graph: ir.Graph, claim: _Claim) -> None:
    said: list[str] = graph.meta.setdefault(_SAID, [])
    if said:
        return
    said.append(claim.value.name or "")
    stated, follows = (text_of_shape(dims or ()) for dims in (claim.dims, _dims_of(claim.value)))
    _log.warning(
        "graph %r: the file states the shape %s for the value %r, but %s follows from its "
        "operators; such statements are ignored",
        *(graph.name, stated, claim.value.name, follows),
    )
