"""Cascades: which model's requests follow which model's. Finds cycles and unknown models."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from coinfer.documents.fields import Problem, unknown_name
from coinfer.workload.arrivals import After, Process

__all__ = ["cascade_problems", "most_per_frame", "root_of"]


def root_of(model: str, processes: Mapping[str, Process]) -> str:
    """Return the model whose request is the first of the cascade, itself if it comes after none.

    The cascades must be without a cycle.
    """
    process = processes.get(model)
    while isinstance(process, After):
        model = process.model
        process = processes.get(model)
    return model


def most_per_frame(model: str, processes: Mapping[str, Process]) -> int:
    """Return how many requests of a model may belong to one frame; the cascades have no cycle."""
    most = 1
    process = processes.get(model)
    while isinstance(process, After):
        most *= process.largest_count
        process = processes.get(process.model)
    return most


def cascade_problems(
    processes: Mapping[str, Process], models: Collection[str]
) -> Iterator[Problem]:
    """Name the models that come after an unknown one, and one model of each cycle."""
    after = {name: p.model for name, p in processes.items() if isinstance(p, After)}
    for name, parent in after.items():
        if parent not in models:
            yield Problem(("arrivals", name, "after"), unknown_name("model", parent, models))
    for cycle in _cycles(after):
        yield Problem(
            ("arrivals", cycle[0], "after"),
            f"{' after '.join([*cycle, cycle[0]])} is a cycle, which nothing would start; give one "
            "of them arrivals of its own, e.g. {periodic: 30/s}",
        )


def _cycles(after: Mapping[str, str]) -> Iterator[list[str]]:
    """Yield each cycle once, from the model that stands first in the scenario."""
    done: set[str] = set()
    for name in after:
        path = [name]
        while (parent := after.get(path[-1])) is not None and parent not in {*path, *done}:
            path.append(parent)
        if parent == name and name not in done:
            yield path
            done.update(path)
