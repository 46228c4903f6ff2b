"""A null backend that is remembered and counts its loads, and processors for it."""

from __future__ import annotations

from typing import Any

from coinfer.backends.null import NullBackend
from coinfer.machine.processor import Processor


class Counting(NullBackend):
    """It states versions, so what is measured with it is remembered."""

    loads = 0

    def versions(self) -> dict[str, str]:
        return {"null": "1"}

    def load(self, model: Any, processor: Processor) -> Any:
        self.loads += 1
        return super().load(model, processor)


def processor(name: str, *units: str, threads: int = 1) -> Processor:
    return Processor(name=name, backend="null", units=frozenset(units), threads=threads)
