"""What the parts of `gpu.py` have in common: the setting, networks, rounds, tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import torch

from coinfer.backends import get_backend
from coinfer.machine.processor import Processor
from coinfer.model import Model, model_from_ir
from coinfer.zoo import registry

__all__ = ["MOST_OFF", "Setting", "Table", "error_of", "feed_of", "reference", "turns", "zoo"]

LEAST_ROUNDS = 3
MOST_ROUNDS = 30
MOST_OFF = 1e-3
"""Largest relative error with which a way still counts: coinfer asks no less of itself."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is measured on.

    Attributes:
        device: `cuda` or `cpu`.
        is_tiny: Whether small networks and few of them stand in.
        processors: coinfer's.
        express: Those on which urgent requests overtake others; none on a CPU.
    """

    device: torch.device
    is_tiny: bool
    processors: tuple[Processor, ...]
    express: tuple[Processor, ...] = ()

    @property
    def first(self) -> Processor:
        return self.processors[0]


@dataclass
class Table:
    """A table of a part.

    Attributes:
        title: What it answers.
        columns: Headings; the first is that of the rows.
        rows: Texts.
        notes: What must be known of it.
    """

    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        lines = [f"### {self.title}", "", "| " + " | ".join(self.columns) + " |"]
        lines.append("|---" + "|---:" * (len(self.columns) - 1) + "|")
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join([*lines, "", *(f"{note}." for note in self.notes)])


def zoo(name: str, seed: int = 0) -> Model:
    return model_from_ir(registry.build(name, seed=seed), name=f"{name}_{seed}")


def feed_of(name: str, seed: int) -> dict[str, np.ndarray]:
    return dict(registry.sample_inputs(name, seed=seed))


def error_of(made: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> float:
    gaps = (np.linalg.norm(made[name] - ref) / np.linalg.norm(ref) for name, ref in wanted.items())
    return float(max(gaps))


def reference(model: Model, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    cpu = Processor(name="cpu", backend="onnxruntime", units=frozenset({"cpu"}))
    with closing(get_backend("onnxruntime").load(model, cpu)) as session:
        return dict(session.run(feed))


def turns(
    contestants: Mapping[str, Callable[[], object]], seconds: float
) -> dict[str, list[float]]:
    """Time contestants in turn, as many rounds as the time allows."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for run in contestants.values():
        run()
        run()  # what is recorded is recorded at the second run
    ends = time.perf_counter() + seconds
    for number in range(MOST_ROUNDS):
        for name, run in contestants.items():
            started = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - started)
        if time.perf_counter() > ends and number + 1 >= LEAST_ROUNDS:
            break
    return times
