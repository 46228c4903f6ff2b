"""Graphs: make fused graphs in a child process, and keep them among the artefacts.

Fusing builds all graphs and copies their weights; the child does that in memory of its own, within
a limit of time. A graph that was made once for these models is found again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from coinfer.artefacts import Made, MakeError, default_store
from coinfer.artefacts.child import answer_of
from coinfer.errors import ModelError
from coinfer.model import Model, load_model
from coinfer.plan.variant import GraphFile
from coinfer.planner.planning import Planning
from coinfer.profiling.fingerprints import fingerprint_of
from coinfer.units import format_bytes

__all__ = ["MOST_BYTES", "FusedGraph", "fused_graph"]

MOST_BYTES = 2**30
"""Weights of all members: a graph with more does not fit into one file."""

_FORMAT = 1
"""To be raised when fusing makes other graphs of the same models."""

_MOST_S = 60.0
"""A graph that takes longer to make is given up, for good."""

_LEAST_S = 3.0
"""With less of the budget left none is begun."""

_FILE = "fused.onnx"


class FusedGraph(NamedTuple):
    """A fused graph.

    Attributes:
        model: What it computes, as it is loaded.
        file: Where it is kept.
        forms: How many operators were merged in which form.
    """

    model: Model
    file: GraphFile
    forms: Mapping[str, int]


def fused_graph(name: str, members: Mapping[str, Model], planning: Planning) -> FusedGraph | str:
    """Return the fused graph of several models, or why there is none.

    Args:
        name: What it is called.
        members: The models by name, in their order.
        planning: Its budget pays.
    """
    size = sum(model.weight_bytes for model in members.values())
    if size > MOST_BYTES:
        return f"their weights are {format_bytes(size)}; {format_bytes(MOST_BYTES)} can be fused"
    store = default_store()
    if not store.limit_bytes:
        return "no artefacts are kept, and fused graphs are among them"
    cache, budget = planning.profiler.cache, planning.profiler.budget
    parts = {
        "fused": _FORMAT,
        "models": [[n, fingerprint_of(model, cache).full] for n, model in members.items()],
    }
    if budget.left_s < _LEAST_S and not store.knows(parts):
        return "the time for measuring was over"
    problems: list[str] = []

    def make(folder: Path) -> Made:
        made = _made(name, members, folder / _FILE)
        problems.append(made.refused)
        return made

    with budget.spending():
        expected = 2 * size + 2**20
        store.ensure(parts, make, model=name, expected_bytes=expected, patience_s=_MOST_S)
        lease = store.open(parts)
        if lease is None:
            why = problems[0] if problems else ""
            return why or f"no fused graph could be made or kept in {store.folder}"
        with closing(lease):
            path, stored = lease.path(_FILE), lease.artefact.files[_FILE]
            try:
                model = load_model(path, name=name)
            except ModelError as error:
                store.discard(lease, str(error))
                return str(error)
            forms = {form: int(count) for form, count in lease.artefact.facts.items()}
        return FusedGraph(model, GraphFile(str(path), stored.sha256), forms)


def _made(name: str, members: Mapping[str, Model], path: Path) -> Made:
    models = [
        dataclasses.replace(model.renamed(n), content=model.content.detached())
        for n, model in members.items()
    ]
    try:
        data = answer_of("coinfer.graph.fusing.child", (models, name, path), _MOST_S)
    except MakeError as error:
        # Refused for good, too: the next start must not wait for it again.
        return Made(refused=" ".join(str(error).split()))
    return Made(data["facts"], data["refused"])
