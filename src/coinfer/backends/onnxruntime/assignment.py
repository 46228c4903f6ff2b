"""Assignment: read back from a session which execution provider took which nodes of a model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from coinfer.errors import BackendError
from coinfer.model import Model

__all__ = ["assigned", "fallen_back", "numbered", "require_assigned", "taken"]

_NUMBERED = "coinfer-node-"
_NAMED = 5
"""Types of operators that a sentence names."""

_NUMBER = re.compile(rf"{_NUMBERED}(\d+)")


def assigned(session: Any) -> dict[str, int]:
    """Return the number of operators per provider, before fusion."""
    counts: Counter[str] = Counter()
    for subgraph in session.get_provider_graph_assignment_info():
        counts[subgraph.ep_name] += len(subgraph.get_nodes())
    return dict(counts)


def require_assigned(session: Any, provider: str, what: str) -> dict[str, int]:
    """Return what `assigned` does; refuse a session in which a provider took nothing.

    Raises:
        BackendError: others took all of its operators.
    """
    counts = assigned(session)
    # A model without operators was folded to constants: nothing fell back.
    if counts and provider not in counts:
        where = ", ".join(f"{count} on {name}" for name, count in counts.items())
        raise BackendError(
            f"{what}: {provider} took none of its operators ({where}); check the provider's "
            f"driver and libraries, or place the model on the CPU"
        )
    return counts


def fallen_back(session: Any, provider: str) -> str:
    """Return which operators another provider took, in half a sentence; empty if none."""
    missed: Counter[str] = Counter()
    for subgraph in session.get_provider_graph_assignment_info():
        if subgraph.ep_name != provider:
            missed.update(node.op_type for node in subgraph.get_nodes())
    if not missed:
        return ""
    named = ", ".join(f"{count} {op_type}" for op_type, count in missed.most_common(_NAMED))
    rest = f" and {len(missed) - _NAMED} more types" if len(missed) > _NAMED else ""
    return (
        f"{provider} does not take {missed.total()} of its operators, which the CPU computes: "
        f"{named}{rest}"
    )


def numbered(model: Model) -> tuple[Model, dict[str, bool]]:
    """Clone a model with its nodes named by number; tell which of them have branches.

    Nodes are listed by the first value that each makes.
    """
    from coinfer.graph.operators import nodes_by_key

    graph = model.graph.clone()
    nodes: dict[str, bool] = {}
    for key, node in nodes_by_key(graph).items():
        node.name = f"{_NUMBERED}{len(nodes)}"
        kinds = (attribute.type.name for attribute in node.attributes.values())
        nodes[key] = any(kind in ("GRAPH", "GRAPHS") for kind in kinds)
    return model.with_graph(graph), nodes


def taken(session: Any, provider: str, nodes: Mapping[str, bool]) -> frozenset[str]:
    """Which nodes of a numbered model the provider took, by the first value that each makes.

    Nodes inside of branches, and those that a node was expanded to, have no name: if another
    provider took one of these, no node that may contain it counts.
    """
    ours: set[int] = set()
    lost: set[int] = set()
    stray = False
    for subgraph in session.get_provider_graph_assignment_info():
        elsewhere = subgraph.ep_name != provider
        for node in subgraph.get_nodes():
            number = _NUMBER.fullmatch(node.name)
            if number is None:
                stray = stray or elsewhere
            else:
                (lost if elsewhere else ours).add(int(number[1]))
    return frozenset(
        key
        for at, (key, has_branches) in enumerate(nodes.items())
        if at not in lost and (not stray or (at in ours and not has_branches))
    )
