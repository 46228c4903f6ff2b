"""Decisions: where a graph makes integers and booleans of floats, and which outputs follow.

Libraries round in another order. Where two floats are nearly equal, that decides which index
ArgMax, TopK or NonMaxSuppression gives, and with it all that follows. Runs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import onnx_ir as ir

from coinfer.graph.operators import DRAWS_RANDOM, Operator, Operators, inlined, nodes_by_key

__all__ = ["Decision", "Decisions"]

_GRADUAL: Final = frozenset(
    {"Cast", "Ceil", "DynamicQuantizeLinear", "Floor", "QuantizeLinear", "Round"}
)
"""A near tie moves what these make by one step. Floats that follow hardly move: they must agree."""

_STEPS: Final = frozenset({"Ceil", "Floor", "Round", "Sign"})
"""These make floats, but jump as if they were integers."""

_DEFAULT_AXES: Final = {"ArgMax": 0, "ArgMin": 0, "TopK": -1}
"""Operators that choose along an axis: what they chose can be looked at."""


class Decision(NamedTuple):
    """One operator that decides by floats.

    Attributes:
        op_type: Its type.
        floats: The floats that it reads.
        made: What it decides: the integers and booleans that it makes, or floats that jump.
        axis: Where `made` are positions in the first of `floats`, along which axis; else None.
        keeps_axis: Whether `made` has that axis.
        after: Positions of the decisions that these floats depend on.
        outputs: Outputs of the model that may differ where it was a near tie.
    """

    op_type: str
    floats: tuple[str, ...]
    made: tuple[str, ...]
    axis: int | None
    keeps_axis: bool
    after: frozenset[int]
    outputs: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """The decisions of a graph, in topological order.

    Attributes:
        items: The decisions.
        random: Outputs of the model that follow from random numbers drawn inside of it.

    >>> model = ir.from_onnx_text('''<ir_version: 10, opset_import: ["": 20]>
    ... g (float[n, 3] x) => (float[n, 3] e, int64[n, 1] i)
    ... { e = Exp(x)  i = ArgMax<axis=1>(e) }''')
    >>> [(each.op_type, each.floats, set(each.outputs)) for each in Decisions.of(model).items]
    [('ArgMax', ('e',), {'i'})]
    """

    items: tuple[Decision, ...]
    random: frozenset[str]

    @classmethod
    def of(cls, model: ir.Model) -> Decisions:
        """Find the decisions of a valid model."""
        operators = Operators.of(model)
        nodes = nodes_by_key(inlined(model))
        upstream: list[int] = []  # per operator the decisions that it depends on, as bits
        drawn: list[bool] = []
        deciders: list[Operator] = []
        for operator in operators:
            bits = 0
            for producer in operator.producers:
                bits |= upstream[producer]
            if _decides(operator, operators):
                bits |= 1 << len(deciders)
                deciders.append(operator)
            upstream.append(bits)
            draws = not DRAWS_RANDOM.isdisjoint(operator.op_types) and not _is_inert(
                nodes[operator.key]
            )
            drawn.append(draws or any(drawn[p] for p in operator.producers))
        made_by = {name: o.index for o in operators for name in o.writes}
        outputs = {name: made_by[name] for name in operators.outputs if name in made_by}
        return cls(
            items=tuple(
                _decision(operator, nodes[operator.key], at, upstream, outputs, operators)
                for at, operator in enumerate(deciders)
            ),
            random=frozenset(name for name, index in outputs.items() if drawn[index]),
        )


def _decision(
    operator: Operator,
    node: ir.Node,
    at: int,
    upstream: list[int],
    outputs: dict[str, int],
    operators: Operators,
) -> Decision:
    gradual = operator.op_type in _GRADUAL
    before = upstream[operator.index]
    default = _DEFAULT_AXES.get(operator.op_type)
    return Decision(
        op_type=operator.op_type,
        floats=tuple(name for name in operator.reads if _is_float(name, operators)),
        made=_discrete(operator, operators) or operator.writes,
        axis=None if default is None else node.attributes.get_int("axis", default),
        keeps_axis=bool(node.attributes.get_int("keepdims", 1)),
        after=frozenset(other for other in range(at) if before >> other & 1),
        outputs=frozenset(
            name
            for name, index in outputs.items()
            if upstream[index] >> at & 1 and not (gradual and _is_float(name, operators))
        ),
    )


def _decides(operator: Operator, operators: Operators) -> bool:
    if not any(_is_float(name, operators) for name in operator.reads):
        return False
    if operator.op_type in _STEPS:
        return True
    return operator.op_type not in ("Shape", "Size") and bool(_discrete(operator, operators))


def _discrete(operator: Operator, operators: Operators) -> tuple[str, ...]:
    return tuple(
        name
        for name in operator.writes
        if name in operators.specs and operators.specs[name].dtype.kind in "iub"
    )


def _is_float(name: str, operators: Operators) -> bool:
    return name in operators.specs and operators.specs[name].dtype.kind == "f"


def _is_inert(node: ir.Node) -> bool:
    """Dropout draws only while it trains, which its third input says."""
    return node.op_type == "Dropout" and (len(node.inputs) < 3 or node.inputs[2] is None)
