"""FakeGpus: one GPU without a GPU. Its streams do everything late; its memory is counted."""

from __future__ import annotations

from backends.late_stream import LateCopies, LateStream
from coinfer.backends.base import Device, DeviceUse
from coinfer.backends.torch.shares import Multiprocessors, Share, Shares
from coinfer.backends.torch.stream import CopyStream, Stream

__all__ = ["GPU", "FakeGpus", "FakeSplitter"]

GPU = "CUDA:0"


class FakePart:
    def __init__(self, multiprocessors: int) -> None:
        self.multiprocessors = multiprocessors

    def stream(self, *, is_urgent: bool) -> LateStream:
        return LateStream()


class FakeSplitter:
    """A GPU of 132 multiprocessors in groups of eight.

    Attributes:
        splits: The sizes of all splits.
        lacking: How many a part has fewer than asked for.
    """

    def __init__(self, lacking: int = 0) -> None:
        self.splits: list[list[int]] = []
        self.lacking = lacking

    def multiprocessors(self, device: int) -> Multiprocessors:
        return Multiprocessors(count=132, least=8, multiple=8)

    def split(self, device: int, sizes: list[int]) -> list[FakePart]:
        self.splits.append(list(sizes))
        return [FakePart(size - self.lacking) for size in sizes]


class FakeGpus:
    """One GPU.

    Attributes:
        log: What all its streams did, in order.
        made: Its streams, by `device/share/urgent`.
        copy_stream: Its stream of copies.
        splitter: Splits it.
        total: Bytes that it has.
        foreign: Bytes that other processes take.
    """

    def __init__(self, total: int = 1 << 30) -> None:
        self.log: list[str] = []
        self.made: list[LateStream] = []
        self.copy_stream = LateCopies(self.log)
        self.splitter = FakeSplitter()
        self.total, self.foreign = total, 0
        self._shares = Shares(self.splitter)

    def devices(self) -> tuple[Device, ...]:
        return (Device(name=GPU, kind="gpu", precisions=("fp32", "fp16"), description="a fake"),)

    def stream(self, device: str, share: str, what: str, *, is_urgent: bool) -> tuple[Stream, int]:
        count = 0
        if share:
            count = self._shares.part(0, Share.parse(share, what), what).multiprocessors
        stream = LateStream(self.log)
        self.made.append(stream)
        return stream, count

    def copies(self, device: str) -> CopyStream:
        return self.copy_stream

    def use(self, device: str) -> DeviceUse:
        held = self.copy_stream.held
        return DeviceUse(
            held_bytes=held,
            kept_bytes=held,
            free_bytes=max(0, self.total - held - self.foreign),
            total_bytes=self.total,
        )
