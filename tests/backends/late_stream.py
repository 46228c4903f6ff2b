"""LateStream: a fake of a device's stream. What it is asked for happens at `finish`, not before.

So whoever reads too early, or overwrites what is still to be read, gets wrong numbers. Its device
is the CPU.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from coinfer.backends.device_faults import Fault
from coinfer.backends.torch.stream import Captured, Run

__all__ = ["LateStream"]


class LateStream:
    """Does everything late.

    Attributes:
        log: What was asked for, in order: `copy`, `replay`, `capture`, `finish`, `relieve`.
        errors: Raised by the next `finish` calls, or None for one that works.
        can_capture: Whether work can be recorded.
        recorded_s: What a replay takes on the clock.
        plain_s: What a plain launch takes on the clock.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.device = torch.device("cpu")
        self.log: list[str] = []
        self.errors: list[Exception | None] = []
        self.can_capture = True
        self.recorded_s, self.plain_s = 1.0, 2.0
        self.time_s = 0.0
        self._queue: list[Callable[[], object]] = []

    def clock(self) -> float:
        return self.time_s

    def active(self) -> AbstractContextManager[object]:
        return nullcontext()

    def host_empty(self, like: Any) -> Any:
        return _poisoned(torch.empty(like.shape, dtype=like.dtype))

    def copy(self, target: Any, source: Any) -> None:
        self._later("copy", lambda: target.copy_(source))

    def capture(self, run: Run, inputs: Sequence[Any]) -> Captured:
        assert not self._queue, "something is in flight while work is recorded"
        self.log.append("capture")
        if not self.can_capture:
            raise RuntimeError("operation not permitted when stream is capturing")
        outputs = [each.clone() for each in run(inputs)]
        for each in outputs:
            _poisoned(each)

        def replay() -> None:
            def work() -> None:
                self.time_s += self.recorded_s
                for target, made in zip(outputs, run(inputs), strict=True):
                    target.copy_(made)

            self._later("replay", work)

        return Captured(outputs=outputs, replay=replay)

    def launch(self, run: Run, inputs: Sequence[Any]) -> list[Any]:
        self._flush()  # torch computes at once, so what is before must be done
        self.log.append("launch")
        self.time_s += self.plain_s
        return run(inputs)

    def finish(self) -> None:
        self.log.append("finish")
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            self._queue.clear()
            raise error
        self._flush()

    def fault(self, error: BaseException) -> Fault:
        text = str(error)
        return Fault.MEMORY if "memory" in text else Fault.LOST if "lost" in text else Fault.OTHER

    def relieve(self) -> None:
        self.log.append("relieve")

    def _later(self, what: str, work: Callable[[], object]) -> None:
        self.log.append(what)
        self._queue.append(work)

    def _flush(self) -> None:
        queue, self._queue = self._queue, []
        for work in queue:
            work()


def _poisoned(tensor: Any) -> Any:
    return tensor.fill_(float("nan") if tensor.is_floating_point() else 77)
