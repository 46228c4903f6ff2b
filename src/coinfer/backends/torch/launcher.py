"""Launcher: runs one program on a stream: copies in, launches, copies out, one after the other.

An execution of a size that comes again is recorded (a CUDA graph), so that one launch stands for
hundreds, if that is faster. Knows no CUDA: see `stream`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from coinfer.backends.device_faults import Fault
from coinfer.backends.torch.library import torch
from coinfer.backends.torch.stream import Captured, Run, Stream, Upload

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
        upload: What the first execution waits for; None once that is done.
        choices: By sizes, whether it is faster recorded. Kept while the program is not on the
            device, so that this is found out once.
    """

    run: Run
    stream: Stream
    keep: Collection[int] = ()
    records: bool = True
    upload: Upload | None = None
    choices: MutableMapping[Hashable, bool] = field(default_factory=dict)
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
                return self._finished(inputs, resident)
            except Exception as error:
                if self.stream.fault(error) is not Fault.MEMORY:
                    raise
            self.forget()
            self.stream.relieve()
            return self._finished(inputs, resident)

    def forget(self) -> None:
        """Drop buffers and recordings; they come back as they are needed."""
        self._sizes.clear()

    @property
    def recorded(self) -> int:
        """For how many sizes executions are recorded."""
        return sum(size.captured is not None for size in self._sizes.values())

    @property
    def device_bytes(self) -> int:
        """What the inputs of all sizes take on the device."""
        return sum(each.nbytes for size in list(self._sizes.values()) for each in size.inputs)

    def _finished(self, inputs: Sequence[Any], resident: Collection[int]) -> list[Any]:
        try:
            out = self._execute(inputs, resident)
        except Exception:
            # What was queued before still uses memory that is given back from here on.
            with suppress(Exception):
                self.stream.finish()
            raise
        self.stream.finish()
        self.upload = None
        return out

    def _execute(self, inputs: Sequence[Any], resident: Collection[int]) -> list[Any]:
        if self.upload is not None:
            self.stream.wait(self.upload)
        key = tuple((tuple(each.shape), each.dtype) for each in inputs)
        size = self._size(key, inputs)
        size.runs += 1
        self._fill(size, inputs, resident)
        if size.runs == 1 and self.choices.get(key):  # recorded, when it was here before
            self._record(size)
        elif size.runs == 2 and self.records and key not in self.choices:
            # One of a size that came once may never come again.
            self.choices[key] = self._choose(size)
        return [self._out(at, each) for at, each in enumerate(self._launched(size))]

    def _size(self, key: Hashable, inputs: Sequence[Any]) -> _Size:
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

    def _choose(self, size: _Size) -> bool:
        """Record the execution, if that can be done and is faster; tell whether it is."""
        self._record(size)
        captured = size.captured
        if captured is None:
            return False
        plain_s = self._seconds(lambda: self.stream.launch(self.run, size.inputs))
        if self._seconds(captured.replay) > plain_s:
            size.captured = None
        return size.captured is not None

    def _record(self, size: _Size) -> None:
        """Record the execution, if that can be done."""
        self.stream.finish()
        try:
            size.captured = self.stream.capture(self.run, size.inputs)
        except Exception as error:
            # What cannot be recorded waits for the device, and says so in many ways.
            if self.stream.fault(error) is not Fault.OTHER:
                raise

    def _seconds(self, launch: Callable[[], object]) -> float:
        """Return the least of some runs, from launch to end."""
        found = []
        for _ in range(_TRIALS):
            started = self.stream.clock()
            launch()
            self.stream.finish()
            found.append(self.stream.clock() - started)
        return min(found)
