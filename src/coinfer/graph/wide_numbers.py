"""Wide numbers: where a graph computes with more than 32 bits. Runs nothing.

Libraries that compute 64-bit integers or float64 in 32 bits give other results there and say
nothing. Sizes are no such numbers, whoever computes them: they fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx_ir as ir

from coinfer.graph.operators import Operator, Operators, inlined, nodes_by_key, subgraphs
from coinfer.model.canonical import constant_tensor

__all__ = ["MOST_32_BITS", "WideNumbers"]

MOST_32_BITS: Final = 2**31 - 1
"""The largest integer that fits."""

_ARITHMETIC: Final = frozenset(
    {
        *("Abs", "Add", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Clip"),
        *("CumSum", "Div", "Einsum", "Gemm", "MatMul", "Max", "Min", "Mod", "Mul", "Neg", "Pow"),
        *("ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd"),
        *("ReduceSum", "ReduceSumSquare", "Sub", "Sum"),
    }
)

_CHOICES: Final = frozenset(
    {
        *("Compress", "Concat", "Gather", "GatherElements", "GatherND"),
        *("ScatterElements", "ScatterND", "Where"),
    }
)
"""What hands constants on as they are."""

_SIZES: Final[dict[str, frozenset[int]]] = {
    "CenterCropPad": frozenset({1}),
    "ConstantOfShape": frozenset({0}),
    "DFT": frozenset({1}),
    "Expand": frozenset({1}),
    "OneHot": frozenset({1}),
    "Pad": frozenset({1}),
    "Range": frozenset({0, 1, 2}),
    "Reshape": frozenset({1}),
    "Resize": frozenset({2, 3}),
    "Split": frozenset({1}),
    "SplitToSequence": frozenset({1}),
    "STFT": frozenset({1, 3}),
    "Tile": frozenset({1}),
    "TopK": frozenset({1}),
    "Upsample": frozenset({1}),
    **dict.fromkeys(("BlackmanWindow", "HammingWindow", "HannWindow"), frozenset({0})),
}
"""Positions of inputs that say how large something is. A large one would take all memory."""

_MEASURE: Final = frozenset({"Shape", "Size"})

_LARGEST_READ: Final = 1 << 16
"""Elements of a constant that are looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WideNumbers:
    """Where a graph may compute with more than 32 bits.

    Attributes:
        inputs: Integer inputs that enter arithmetic, or come out again, and say no size.
        results: The 64-bit integers that such arithmetic makes, those that follow from them, and
            outputs that such inputs come out of as they are.
        constants: Of `results`, those made with a constant that does not fit 32 bits.
        doubles: The operators that compute with float64. One that only converts it does not.

    >>> model = ir.from_onnx_text('''<ir_version: 10, opset_import: ["": 20]>
    ... g (int64[n] ids) => (int64[n] h) <int64 k = {2654435761}> { h = Mul(ids, k) }''')
    >>> WideNumbers.of(model)
    WideNumbers(inputs=('ids',), results=('h',), constants=('h',), doubles=())
    """

    inputs: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    constants: tuple[str, ...] = ()
    doubles: tuple[int, ...] = ()

    @classmethod
    def of(cls, model: ir.Model) -> WideNumbers:
        """Look at the operators of a valid model."""
        operators = Operators.of(model)
        nodes = nodes_by_key(inlined(model))
        integers, sizes = _origins(operators, nodes)
        found: dict[str, frozenset[str]] = {}
        constants = []
        for operator in operators:
            computes = operator.op_type in _ARITHMETIC
            takes_wide = (computes or operator.op_type in _CHOICES) and _has_wide_constant(
                nodes[operator.key]
            )
            counts = computes or takes_wide or not found.keys().isdisjoint(operator.reads)
            for name in operator.writes:
                if not counts and name not in operators.outputs:
                    continue
                from_data = integers.get(name, frozenset()) - sizes
                if from_data and operators.specs[name].dtype.itemsize == 8:
                    found[name] = from_data
                    if takes_wide:
                        constants.append(name)
        entering = frozenset[str]().union(*found.values())
        return cls(
            inputs=tuple(name for name in operators.inputs if name in entering),
            results=tuple(found),
            constants=tuple(constants),
            doubles=tuple(o.index for o in operators if _computes_doubles(o, operators)),
        )


def _origins(
    operators: Operators, nodes: dict[str, ir.Node]
) -> tuple[dict[str, frozenset[str]], frozenset[str]]:
    """Return the integer inputs that each integer value depends on, and those that say sizes."""
    kinds = {name: spec.dtype.kind for name, spec in operators.specs.items()}
    given = {n: frozenset({n}) for n in operators.inputs if kinds.get(n, "?") in "iu"}
    through_all, through_integers = dict(given), dict(given)
    sizes: set[str] = set()
    for operator in operators:
        if operator.op_type in _MEASURE:
            continue
        for name in _size_reads(operator, nodes[operator.key]):
            sizes |= through_all.get(name, frozenset())
        for origins in (through_all, through_integers):
            found = frozenset[str]().union(*(origins.get(n, ()) for n in operator.reads))
            for name in operator.writes:
                if found and (origins is through_all or kinds.get(name, "?") in "iu"):
                    origins[name] = found
    return through_integers, frozenset(sizes)


def _size_reads(operator: Operator, node: ir.Node) -> Iterator[str]:
    """Yield what says sizes; inside of If, Loop and Scan anything may."""
    if next(subgraphs(node), None) is not None:
        yield from operator.reads
        return
    for position in _SIZES.get(operator.op_type, ()):
        if position < len(node.inputs) and (value := node.inputs[position]) is not None:
            yield value.name or ""


def _has_wide_constant(node: ir.Node) -> bool:
    tensors = (constant_tensor(value) for value in node.inputs if value is not None)
    return any(
        bool((np.abs(tensor.numpy().astype(np.float64)) > MOST_32_BITS).any())
        for tensor in tensors
        if tensor is not None and tensor.size <= _LARGEST_READ
    )


def _computes_doubles(operator: Operator, operators: Operators) -> bool:
    dtypes = [operators.specs[n].dtype for n in operator.reads if n in operators.specs]
    if np.dtype(np.float64) not in dtypes or operator.op_type in _MEASURE:
        return False
    made = [operators.specs[n].dtype for n in operator.writes if n in operators.specs]
    converts = operator.op_type in ("Cast", "CastLike")
    return not (converts and all(d.kind in "fb" and d.itemsize < 8 for d in made))
