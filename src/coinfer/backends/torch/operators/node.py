"""OperatorNode and Operator: a node as its function sees it, and a row of the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from coinfer.backends.torch.library import torch

__all__ = ["DTYPES", "FLOATS", "NUMBERS", "Operator", "OperatorNode", "no_reason", "number"]

DTYPES: Mapping[int, Any] = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    16: torch.bfloat16,
}
"""By ONNX's number. Larger unsigned integers are left out: torch computes little with them."""

FLOATS = frozenset({1, 10, 11, 16})
NUMBERS = frozenset(DTYPES)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorNode:
    """A node, as far as its function and its check need it.

    Attributes:
        op_type: Its type, in the standard domain.
        version: Of the operator set.
        attributes: Values by name: numbers, texts, tuples of them, or arrays.
        given: Which inputs there are; left-out ones are False.
        outputs: Which of its outputs somebody wants.
        types: ONNX's numbers of the types of its inputs; None where unknown.
        ranks: Numbers of axes of its inputs; None where unknown.
        compute: The type in which what is float32 in the graph is computed.
        device: Where new tensors are made.
    """

    op_type: str
    version: int
    attributes: Mapping[str, Any] = field(default_factory=dict)
    given: tuple[bool, ...] = ()
    outputs: tuple[bool, ...] = (True,)
    types: tuple[int | None, ...] = ()
    ranks: tuple[int | None, ...] = ()
    compute: Any = torch.float32
    device: Any = "cpu"

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute."""
        return self.attributes.get(name, default)

    def setting(self, given: Any, name: str, default: Any = None) -> Any:
        """Return what newer operator sets give as an input and older ones as an attribute."""
        return self.attributes.get(name, default) if given is None else given

    def has(self, at: int) -> bool:
        """Tell whether there is an input at a position."""
        return at < len(self.given) and self.given[at]

    def rank(self, at: int = 0) -> int | None:
        """Return the number of axes of an input; None if unknown."""
        return self.ranks[at] if at < len(self.ranks) else None

    def dtype(self, number: int) -> Any:
        """Return torch's type for ONNX's number; float32 is what is computed in."""
        found = DTYPES[number]
        return self.compute if found is torch.float32 else found


def number(value: Any) -> Any:
    """Return the one number that a setting holds, which may be given as a list of one."""
    return value[0] if isinstance(value, list | tuple) else value


def no_reason(node: OperatorNode) -> str:  # noqa: ARG001  # a check that refuses nothing
    """Refuse nothing."""
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """How torch computes an operator.

    Attributes:
        function: Takes the node and its inputs, returns a tensor or a tuple of them. Inputs that
            are left out are None.
        settings: Positions of inputs that it gets as plain numbers or lists of them, not tensors.
        types: Types that its inputs may have, by ONNX's number.
        refuses: Says why it cannot compute a node; empty if it can.
        outputs: How many outputs it has at most.
    """

    function: Callable[..., Any]
    settings: frozenset[int] = frozenset()
    types: frozenset[int] = NUMBERS
    refuses: Callable[[OperatorNode], str] = no_reason
    outputs: int = 1
