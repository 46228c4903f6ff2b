"""Launcher: runs one program on a stream: copies in, launches, copies out, one after the other.

An execution of a size that comes again is recorded (a CUDA graph), so that one launch stands for
hundreds, if that is faster. Knows no CUDA: see `stream`.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from coinfer.backends.torch.library import torch
from coinfer.backends.torch.stream import Captured, Fault, Run, Stream

__all__ = ["Launcher"]

_MOST_SIZES = 16
"""Sizes for which buffers and recordings are kept; they take memory of the device."""

_TRIALS = 5
"""Runs of either kind when a recording is compared with plain launches."""


@dataclass(slots=True, kw_only=True)
class _Size:
    """What is kept for inputs of certain sizes.

    Attributes:
        staged: Memory of the host through which inputs go.
        inputs: Memory of the device that a run reads.
        runs: Executions so far.
        captured: What is repeated; None: each execution launches anew.
    """

    staged: Sequence[Any]
    inputs: Sequence[Any]
    runs: int = 0
    captured: Captured | None = None


@dataclass(slots=True, kw_only=True, weakref_slot=True)
class Launcher:
    """Runs one program on one stream.

    Attributes:
        run: Launches the program.
        stream: Where.
        keep: Positions of outputs that stay on the device.
        records: Whether the program can be recorded, as far as is known.
        clock: Seconds.
    """

    run: Run
    stream: Stream
    keep: Collection[int] = ()
    records: bool = True
    clock: Callable[[], float] = time.perf_counter
    _sizes: OrderedDict[Hashable, _Size] = field(default_factory=OrderedDict)

    def execute(self, inputs: Sequence[Any], resident: Collection[int] = ()) -> list[Any]:
        """Run the program once; all is done when it returns.

        Out of memory, it gives back what it keeps and tries once more.

        Args:
            inputs: Tensors on the host.
            resident: Positions of those that are on the device.

        Returns:
            Outputs on the host, those of `keep` on the device. They share no memory with others.

        Raises:
            Exception: what the library raises.
        """
        with self.stream.lock, self.stream.active():
            try:
                return self._execute(inputs, resident)
            except Exception as error:
                if self.stream.fault(error) is not Fault.MEMORY:
                    raise
            self.forget()
            self.stream.relieve()
            return self._execute(inputs, resident)

    def forget(self) -> None:
        """Drop buffers and recordings; they come back as they are needed."""
        self._sizes.clear()

    @property
    def recorded(self) -> int:
        """For how many sizes executions are recorded."""
        return sum(size.captured is not None for size in self._sizes.values())

    def _execute(self, inputs: Sequence[Any], resident: Collection[int]) -> list[Any]:
        size = self._size(inputs)
        size.runs += 1
        self._fill(size, inputs, resident)
        if size.runs == 2 and self.records:  # one of a size that came once may never come again
            self._choose(size)
        made = self._launched(size)
        out = [self._out(at, each) for at, each in enumerate(made)]
        self.stream.finish()
        return out

    def _size(self, inputs: Sequence[Any]) -> _Size:
        key = tuple((tuple(each.shape), each.dtype) for each in inputs)
        size = self._sizes.get(key)
        if size is None:
            size = _Size(
                staged=[self.stream.host_empty(each) for each in inputs],
                inputs=[torch.empty_like(each, device=self.stream.device) for each in inputs],
            )
            self._sizes[key] = size
            if len(self._sizes) > _MOST_SIZES:
                self._sizes.popitem(last=False)
        self._sizes.move_to_end(key)
        return size

    def _fill(self, size: _Size, inputs: Sequence[Any], resident: Collection[int]) -> None:
        for at, (given, staged) in enumerate(zip(inputs, size.staged, strict=True)):
            if at not in resident:
                given = staged.copy_(given)
            self.stream.copy(size.inputs[at], given)

    def _launched(self, size: _Size) -> Sequence[Any]:
        if size.captured is None:
            return self.stream.launch(self.run, size.inputs)
        size.captured.replay()
        return size.captured.outputs

    def _out(self, at: int, made: Any) -> Any:
        # What is recorded is overwritten, and an output may be an input or a constant.
        if at in self.keep:
            target = torch.empty(made.shape, dtype=made.dtype, device=self.stream.device)
        else:
            target = self.stream.host_empty(made)
        self.stream.copy(target, made)
        return target

    def _choose(self, size: _Size) -> None:
        """Record the execution, if that can be done and is faster."""
        self.stream.finish()
        try:
            captured = self.stream.capture(self.run, size.inputs)
        except Exception as error:
            # What cannot be recorded waits for the device, and says so in many ways.
            if self.stream.fault(error) is not Fault.OTHER:
                raise
            return
        plain_s = self._seconds(lambda: self.stream.launch(self.run, size.inputs))
        if self._seconds(captured.replay) <= plain_s:
            size.captured = captured

    def _seconds(self, launch: Callable[[], object]) -> float:
        """Return the least of some runs, from launch to end."""
        found = []
        for _ in range(_TRIALS):
            started = self.clock()
            launch()
            self.stream.finish()
            found.append(self.clock() - started)
        return min(found)
