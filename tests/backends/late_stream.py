"""LateStream: a fake of a device's stream. What it is asked for happens at `finish`, not before.

So whoever reads too early, or overwrites what is still to be read, gets wrong numbers. Its device
is the CPU. `LateCopies` is one of a stream of copies, which happen when somebody waits for them.

Both log what is done in one order. Memory of the device counts as freed when nobody has it any
more: what was recorded has addresses, and no memory, so reading what was freed is an error.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch

from coinfer.backends.device_faults import Fault
from coinfer.backends.torch.stream import Captured, Run

__all__ = ["LateCopies", "LateStream", "LateUpload", "fault_of"]


class LateUpload:
    """A copy that is done when somebody waits for it; before, there is nonsense.

    Attributes:
        buffer: Memory of the device.
        is_done: Whether it was done.
    """

    def __init__(self, source: Any, log: list[str], freed: Callable[[int], None]) -> None:
        memory = np.full(source.nbytes, 0xFF, np.uint8)
        # Views of a tensor keep the array, and the array goes with the last of them.
        weakref.finalize(memory, freed, memory.nbytes)
        self.buffer = torch.from_numpy(memory)
        self.is_done = False
        self._log, self._source = log, source

    def finish(self) -> None:
        if not self.is_done:
            self._log.append("copied")
            self.buffer.copy_(self._source)
            self.is_done = True


class LateCopies:
    """A stream of copies.

    Attributes:
        log: `pin`, `unpin`, `upload`, `copied`, `freed`, `relieve`, in order.
        errors: Raised by the next uploads.
        can_pin: Whether the host lets memory be pinned.
        pinned: Bytes that are pinned now.
        held: Bytes of the device that are in use.
        uploaded: All that was copied.
    """

    def __init__(self, log: list[str] | None = None) -> None:
        self.log: list[str] = [] if log is None else log
        self.errors: list[Exception] = []
        self.can_pin = True
        self.pinned = 0
        self.held = 0
        self.uploaded = 0

    def pin(self, buffer: Any) -> Callable[[], None] | None:
        if not self.can_pin:
            return None
        self.log.append("pin")
        size = buffer.nbytes
        self.pinned += size

        def unpin() -> None:
            assert buffer.nbytes == size  # it is kept until then
            self.log.append("unpin")
            self.pinned -= size

        return unpin

    def upload(self, buffer: Any) -> LateUpload:
        if self.errors:
            raise self.errors.pop(0)
        self.log.append("upload")
        self.held += buffer.nbytes
        self.uploaded += buffer.nbytes
        return LateUpload(buffer, self.log, self._freed)

    def fault(self, error: BaseException) -> Fault:
        return fault_of(error)

    def relieve(self) -> None:
        self.log.append("relieve")

    def _freed(self, size: int) -> None:
        self.held -= size
        self.log.append("freed")


def fault_of(error: BaseException) -> Fault:
    text = str(error)
    return Fault.MEMORY if "memory" in text else Fault.LOST if "lost" in text else Fault.OTHER


class LateStream:
    """Does everything late.

    Attributes:
        log: What was asked for, in order: `wait`, `copy`, `replay`, `capture`, `finish`, `relieve`.
        errors: Raised by the next `finish` calls, or None for one that works.
        can_capture: Whether work can be recorded.
        recorded_s: What a replay takes on the clock.
        plain_s: What a plain launch takes on the clock.
        full: How often there is no memory for an output yet.
        finishing: Called when somebody begins to wait for what is in flight.
    """

    def __init__(self, log: list[str] | None = None) -> None:
        self.lock = threading.Lock()
        self.device = torch.device("cpu")
        self.log: list[str] = [] if log is None else log
        self.full = 0
        self.finishing: Callable[[], None] = lambda: None
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
        if self.full and self._queue:
            self.full -= 1
            raise RuntimeError("out of memory")
        return _poisoned(torch.empty(like.shape, dtype=like.dtype))

    def copy(self, target: Any, source: Any) -> None:
        self._later("copy", lambda: target.copy_(source))

    def wait(self, upload: LateUpload) -> None:
        self._later("wait", upload.finish)

    def capture(self, run: Run, inputs: Sequence[Any]) -> Captured:
        assert not self._queue, "something is in flight while work is recorded"
        self.log.append("capture")
        if not self.can_capture:
            raise RuntimeError("operation not permitted when stream is capturing")
        outputs = [each.clone() for each in run(inputs)]
        for each in outputs:
            _poisoned(each)
        # A recording has the addresses of weights, and does not keep them.
        recorded = weakref.WeakMethod(run) if hasattr(run, "__self__") else lambda: run

        def replay() -> None:
            def work() -> None:
                again = recorded()
                assert again is not None, "weights were freed while something in flight reads them"
                self.time_s += self.recorded_s
                for target, made in zip(outputs, again(inputs), strict=True):
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
        self.finishing()
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            self._queue.clear()
            raise error
        self._flush()

    def fault(self, error: BaseException) -> Fault:
        return fault_of(error)

    def relieve(self) -> None:
        assert not self._queue, "memory is given back while something in flight uses it"
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
