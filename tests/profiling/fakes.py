"""A backend that computes tiny_linear with a known error, counts loads, and can refuse."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from coinfer.backends.base import Device, Placement, Tensors
from coinfer.errors import BackendError
from coinfer.machine.processor import Processor
from coinfer.model import Model
from coinfer.testing.models import tiny_linear

LINEAR = tiny_linear()


class FakeSession:
    def __init__(self, backend: FakeBackend, factor: float) -> None:
        self._backend = backend
        self._factor = factor
        self.closed = False

    def run(self, inputs: Tensors) -> dict[str, np.ndarray[Any, Any]]:
        self._backend.batches.append(len(next(iter(inputs.values()))))
        if self._backend.raises is not None:
            raise self._backend.raises
        with np.errstate(all="ignore"):  # NaN is no reason to complain
            return {"y": LINEAR.reference(inputs)["y"] * np.float32(self._factor)}

    def placement(self) -> Placement:
        return Placement(operators={"FAKE": 2}, precision="fp32", threads=1)

    def close(self) -> None:
        self.closed = True


@dataclass
class FakeBackend:
    """Below fp32 every output is `1 + error` times what it should be."""

    name: str = "fake"
    version: str = "1"
    error: float = 0.0
    refused: frozenset[str] = frozenset()
    raises: Exception | None = None
    loads: list[tuple[str, str, str]] = field(default_factory=list)
    sessions: list[FakeSession] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)

    def versions(self) -> Mapping[str, str]:
        return {"fake": self.version} if self.version else {}

    def devices(self) -> tuple[Device, ...]:
        return (Device(name="CPU", kind="cpu", precisions=("fp32", "bf16"), description="fake"),)

    def sharing_key(self, processor: Processor) -> Hashable:
        return processor.name

    def supported(self, model: Model, processor: Processor) -> None:
        return None

    def load(self, model: Model, processor: Processor) -> FakeSession:
        if model.name != "tiny_mlp":  # what the profiler wakes a library with
            self.loads.append((model.name, processor.name, processor.precision))
        if processor.name in self.refused:
            raise BackendError(f"model {model.name!r} on processor {processor.name!r}: refused")
        session = FakeSession(self, 1.0 if processor.precision == "fp32" else 1.0 + self.error)
        self.sessions.append(session)
        return session

    @property
    def measured(self) -> list[tuple[str, str]]:
        """What was measured: references in fp32 for a lower precision are left out."""
        seen = dict.fromkeys(self.loads)
        lower = {(model, name) for model, name, precision in seen if precision != "fp32"}
        return [
            (model, name)
            for model, name, precision in self.loads
            if precision != "fp32" or (model, name) not in lower
        ]


def cpu(name: str = "cpu0", core: int = 0, **fields: Any) -> Processor:
    fields.setdefault("units", frozenset({f"core{core}"}))
    return Processor(name=name, backend="fake", **fields)
