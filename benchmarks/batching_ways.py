"""Ways to serve batches inside this process, for `batching.py`: engines, and two made by hand.

The best hand-made batcher is what somebody writes who knows ONNX Runtime: a queue per network and
size, a pinned thread per core with sessions of one thread, and a batch that is run when it is full
or when its first request has waited for some milliseconds. The network whose first request comes
first, or is due first, is served first; what cannot be in time any more is dropped.

The fixed batch has no queue at all: each core runs full batches without a pause, and answers
nobody.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

import coinfer
from batching_load import WAIT_S, Ask
from batching_networks import Feed, feeds_of
from coinfer.hardware.catalogue import default_processors
from coinfer.model import Model
from coinfer.threads.pinning import pin_current_thread

__all__ = ["BATCHES", "DELAYS_S", "EngineWay", "HandMade", "Sessions", "engine_of_all"]

BATCHES = (1, 2, 4, 8, 16)
DELAYS_S = (0.0, 0.001, 0.002, 0.005)

Done = Callable[[bool], None]


def engine_of_all(models: Mapping[str, Model], batch: str) -> coinfer.Engine:
    """Make an engine that has what the others have: ONNX Runtime on the processor's cores."""
    processors = default_processors(["onnxruntime"])
    samples = {name: feeds_of(name, model) for name, model in models.items()}
    return coinfer.Engine(models, processors=processors, batch=batch, samples=samples)


class EngineWay:
    """A coinfer engine."""

    def __init__(self, engine: coinfer.Engine, feeds: Mapping[str, Sequence[Feed]]) -> None:
        self._engine, self._feeds = engine, feeds

    def ask(self, ask: Ask, done: Done) -> None:
        """Submit; with a deadline, what is late is dropped."""
        options: dict[str, Any] = {}
        if ask.deadline_s:
            options = {"deadline_s": ask.deadline_s, "on_late": "drop"}
        future = self._engine.submit(ask.name, self._feeds[ask.name][ask.feed], **options)

        def ended(over: Future[Any]) -> None:
            done(over.exception() is None)

        future.add_done_callback(ended)

    def settle(self) -> None:
        """Wait until all are over."""
        self._engine.drain(WAIT_S)


class Sessions:
    """Sessions of one thread of every network on every core, on ONNX Runtime."""

    def __init__(self, models: Mapping[str, Model], cores: Sequence[int]) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.cores = cores
        self._of = {
            (name, core): onnxruntime.InferenceSession(
                model.to_bytes(), options, providers=["CPUExecutionProvider"]
            )
            for name, model in models.items()
            for core in cores
        }

    def run(self, name: str, core: int, feed: Feed) -> list[Any]:
        """Run a network in the calling thread."""
        found: list[Any] = self._of[name, core].run(None, feed)
        return found

    def full_batches(
        self,
        feeds: Mapping[str, Sequence[Feed]],
        batches: Mapping[str, int],
        shares: Mapping[str, float],
        seconds: float,
    ) -> float:
        """Return samples per second of full batches, of which each network has its share.

        Each feed of a network is as common as the others. Networks take turns by their shares for
        so many seconds. Then they have run their shares but for a batch, which may be a tenth of
        all that ran: so it is the time of a sample of each feed that counts, at the exact shares.
        """
        stacked = {name: [stack([feed] * batches[name]) for feed in feeds[name]] for name in shares}
        took_s: dict[tuple[str, int], list[float]] = {
            (name, at): [] for name, each in stacked.items() for at in range(len(each))
        }

        def serve(core: int) -> None:
            pin_current_thread((core,))
            served, runs = dict.fromkeys(shares, 0), dict.fromkeys(shares, 0)
            begin_s = time.perf_counter()
            while (now := time.perf_counter()) < begin_s + seconds or any(
                runs[name] < len(each) for name, each in stacked.items()
            ):
                name = min(served, key=lambda each: served[each] / shares[each])
                at = runs[name] % len(stacked[name])
                self.run(name, core, stacked[name][at])
                took_s[name, at].append(time.perf_counter() - now)
                runs[name] += 1
                served[name] += batches[name]

        with ThreadPoolExecutor(len(self.cores)) as pool:
            list(pool.map(serve, self.cores))
        sample_s = {
            name: statistics.fmean(
                statistics.fmean(took_s[name, at]) / batches[name] for at in range(len(each))
            )
            for name, each in stacked.items()
        }
        whole = sum(shares.values())
        return len(self.cores) * whole / sum(shares[name] * s for name, s in sample_s.items())

    def rates(
        self, feeds: Mapping[str, Sequence[Feed]], seconds: float
    ) -> dict[str, dict[int, float]]:
        """Return the samples per second of each network alone on all cores, by batch."""
        return {
            name: {
                batch: statistics.median(
                    self.full_batches(feeds, {name: batch}, {name: 1.0}, seconds) for _ in range(3)
                )
                for batch in BATCHES
            }
            for name in feeds
        }


class HandMade:
    """The best hand-made batcher.

    Attributes:
        most: Samples that a run of a network has at most.
        own_s: What a run of one takes.
        delay_s: For how long the first request of a batch waits for others.
    """

    def __init__(
        self,
        sessions: Sessions,
        feeds: Mapping[str, Sequence[Feed]],
        most: Mapping[str, int],
        own_s: Mapping[str, float],
    ) -> None:
        self.most, self.own_s, self.delay_s = most, own_s, 0.0
        self._sessions, self._feeds = sessions, feeds
        self._waiting: dict[tuple[str, int], deque[tuple[float, float, Done]]] = {
            (name, feed): deque() for name, each in feeds.items() for feed in range(len(each))
        }
        self._turn, self._open, self._is_closed = threading.Condition(), 0, False
        self._threads = [
            threading.Thread(target=self._serve, args=(core,), daemon=True)
            for core in sessions.cores
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the threads."""
        with self._turn:
            self._is_closed = True
            self._turn.notify_all()
        for thread in self._threads:
            thread.join()

    def ask(self, ask: Ask, done: Done) -> None:
        """Queue a request."""
        now = time.perf_counter()
        due_s = now + ask.deadline_s if ask.deadline_s else np.inf
        with self._turn:
            self._open += 1
            self._waiting[ask.name, ask.feed].append((now, due_s, done))
            self._turn.notify()

    def settle(self) -> None:
        """Wait until all are over."""
        with self._turn:
            self._turn.wait_for(lambda: not self._open, WAIT_S)

    def _serve(self, core: int) -> None:
        pin_current_thread((core,))
        while (taken := self._take()) is not None:
            (name, feed), batch = taken
            outputs = self._sessions.run(name, core, stack([self._feeds[name][feed]] * len(batch)))
            for at, (_, _, done) in enumerate(batch):
                _answer = [each[at : at + 1] for each in outputs]
                done(True)
            self._over(len(batch))

    def _take(self) -> tuple[tuple[str, int], list[tuple[float, float, Done]]] | None:
        """Return the requests of the next run; None when there are to be no more."""
        with self._turn:
            while True:
                if self._is_closed:
                    return None
                now, soonest_s, ready = time.perf_counter(), np.inf, []
                for key, queue in self._waiting.items():
                    while queue and queue[0][1] < now + self.own_s[key[0]]:
                        queue.popleft()[2](False)
                        self._over(1)
                    if not queue:
                        continue
                    if len(queue) >= self.most[key[0]] or queue[0][0] + self.delay_s <= now:
                        ready.append(key)
                    else:
                        soonest_s = min(soonest_s, queue[0][0] + self.delay_s)
                if ready:
                    key = min(ready, key=lambda each: self._waiting[each][0][1::-1])
                    queue = self._waiting[key]
                    return key, [queue.popleft() for _ in range(min(len(queue), self.most[key[0]]))]
                self._turn.wait(None if soonest_s == np.inf else soonest_s - now)

    def _over(self, count: int) -> None:
        with self._turn:
            self._open -= count
            if not self._open:
                self._turn.notify_all()  # who settles waits for that


def stack(feeds: Sequence[Feed]) -> Feed:
    """Put requests of equal sizes into one."""
    if len(feeds) == 1:
        return feeds[0]
    return {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
