"""Soak: an engine at twice its capacity for as long as one likes; what must stay flat is measured.

    PYTHONPATH=src:tests python -m fuzz.soak --minutes 10

Requests come twice as fast as the engine answered a burst. Late ones are dropped, every tenth is
cancelled, the queue is short, and a model is loaded and unloaded again and again.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import time
from collections import Counter
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import Any

import psutil

import coinfer
from coinfer import zoo
from coinfer.backends.null import NullBackend
from coinfer.errors import ClosedError, CoinferError, DroppedError, RejectedError
from coinfer.model import model_from_ir

__all__ = ["ENGINES", "Sample", "Soak", "faults", "soak", "table"]

OVERLOAD = 2.0
_BURST = 400
_TICK_S = 0.005
_DEADLINE_S = 0.05
_CANCELLED_EVERY = 10
_MODEL_CHANGES_S = 0.5
_MOST_WAITING = 500
_WARM_UP = 0.2
_MEMORY_SHARE, _MEMORY_BYTES = 0.05, 8 * 2**20
_LATENCY_FACTOR, _LATENCY_S = 1.5, 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What was measured at one moment; the latency is a median since the last sample."""

    rss_bytes: int
    threads: int
    files: int
    latency_s: float


@dataclass(slots=True, kw_only=True)
class Soak:
    """What came of one engine.

    Attributes:
        name: Which engine.
        samples: In order; those of the warm-up are left out.
        outcomes: Requests by how they ended.
        unanswered: Requests without an answer at the end.
    """

    name: str
    samples: list[Sample] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    unanswered: int = 0


def faults(done: Soak) -> list[str]:
    """Say what did not stay flat: medians of the second half of the samples beside the first half.

    Memory may grow by 5 % and 8 MiB, latency by half and 5 ms; threads and files not at all.
    """
    half = len(done.samples) // 2
    first, second = done.samples[:half], done.samples[half:]
    found = []

    def compare(what: str, factor: float, slack: float) -> None:
        before, after = (
            statistics.median(getattr(s, what) for s in part) for part in (first, second)
        )
        if after > before * factor + slack:
            found.append(f"{what} grew from {before:g} to {after:g}")

    compare("rss_bytes", 1 + _MEMORY_SHARE, _MEMORY_BYTES)
    compare("threads", 1, 0)
    compare("files", 1, 0)
    compare("latency_s", _LATENCY_FACTOR, _LATENCY_S)
    if done.unanswered:
        found.append(f"{done.unanswered} requests got no answer")
    if done.outcomes["failed"]:
        found.append(f"{done.outcomes['failed']} requests failed")
    return found


def table(runs: list[Soak]) -> str:
    """Write a row for each engine, first and second half beside each other."""
    lines = [f"{'engine':14}{'RSS MiB':>16}{'threads':>10}{'files':>10}{'median ms':>16}  outcomes"]
    for run in runs:
        half = len(run.samples) // 2
        cells = []
        for what, scale, digits in (
            ("rss_bytes", 2**20, 1), ("threads", 1, 0), ("files", 1, 0), ("latency_s", 1e-3, 2),
        ):  # fmt: skip
            parts = (run.samples[:half], run.samples[half:])
            values = [statistics.median(getattr(s, what) for s in p) / scale for p in parts]
            cells.append(" > ".join(f"{value:.{digits}f}" for value in values))
        outcomes = ", ".join(f"{n:,} {name}" for name, n in run.outcomes.most_common())
        sizes = (16, 10, 10, 16)
        row = "".join(f"{c:>{size}}" for c, size in zip(cells, sizes, strict=True))
        lines.append(f"{run.name:14}{row}  {outcomes}")
        lines += [f"  fault: {fault}" for fault in faults(run)]
    return "\n".join(lines)


def _null_engine() -> coinfer.Engine:
    processors = [
        coinfer.Processor(name=name, backend="null", units=frozenset({name})) for name in "ab"
    ]
    return _engine(processors, {"null": NullBackend(service_s=0.001)})


def _real_engine() -> coinfer.Engine:
    core = min(os.sched_getaffinity(0))
    processors = [
        coinfer.Processor(
            name=backend, backend=backend, units=frozenset({"core"}), cores=(core,), threads=1
        )
        for backend in ("onnxruntime", "openvino")
    ]
    return _engine(processors, None)


ENGINES = {"null": _null_engine, "onnxruntime": _real_engine}
"""Makes an engine, by name."""


def _engine(processors: list[coinfer.Processor], backends: Any) -> coinfer.Engine:
    seconds = {each.name: 0.001 for each in processors}
    return coinfer.Engine(
        {name: _net() for name in ("one", "two")},
        processors=processors,
        profile=coinfer.Profile.from_seconds({"one": seconds, "two": seconds}),
        backends=backends,
        limits=coinfer.Limits(max_waiting=_MOST_WAITING),
    )


def _net() -> coinfer.Model:
    return model_from_ir(zoo.build("tiny_cnn"), name="net")


def soak(name: str, seconds: float, *, samples: int = 50) -> Soak:
    """Overload one engine for so long."""
    done = Soak(name=name)
    with ENGINES[name]() as engine:
        load = _Load(engine, done.outcomes)
        rate_per_s = OVERLOAD * load.capacity_per_s()
        done.outcomes.clear()
        begun_s = changed_s = sampled_s = time.monotonic()
        while (now_s := time.monotonic()) < begun_s + seconds:
            load.submit_until((now_s - begun_s) * rate_per_s)
            if now_s - changed_s > _MODEL_CHANGES_S:
                changed_s = now_s
                load.change_models()
            if now_s - sampled_s > seconds / samples:
                sampled_s = now_s
                sample = load.sample()
                if now_s - begun_s > _WARM_UP * seconds:
                    done.samples.append(sample)
            time.sleep(_TICK_S)
        engine.drain(10.0)
        done.unanswered = engine.n_unanswered
    return done


class _Load:
    """Makes requests of an engine, and measures."""

    def __init__(self, engine: coinfer.Engine, outcomes: Counter[str]) -> None:
        self._engine = engine
        self._outcomes = outcomes
        self._process = psutil.Process()
        self._latencies: list[float] = []
        self._extra_model = _net()
        self._inputs = self._extra_model.sample_inputs(batch=16)
        self._submitted = 0

    def capacity_per_s(self) -> float:
        """Answers per second of a burst that fits into the queue."""
        begun_s = time.monotonic()
        for future in [self._engine.submit("one", self._inputs) for _ in range(_BURST)]:
            future.result(timeout=60)
        return _BURST / (time.monotonic() - begun_s)

    def submit_until(self, due: float) -> None:
        """Submit requests until there were so many."""
        while self._submitted < due:
            self._submitted += 1
            future = self._submit("one" if self._submitted % 3 else "two")
            if self._submitted % _CANCELLED_EVERY == 0:
                future.cancel()

    def change_models(self) -> None:
        """Load one more model, ask it, and unload it while requests of it wait."""
        names = [each.name for each in self._engine.plan.processors]
        profile = coinfer.Profile.from_seconds({"extra": dict.fromkeys(names, 0.001)})
        self._engine.load("extra", self._extra_model, profile)
        for _ in range(5):
            self._submit("extra")
        self._engine.unload("extra")

    def sample(self) -> Sample:
        """Measure now."""
        gc.collect()
        latencies, self._latencies = self._latencies, []
        return Sample(
            rss_bytes=self._process.memory_info().rss,
            threads=self._process.num_threads(),
            files=self._process.num_fds(),
            latency_s=statistics.median(latencies) if latencies else 0.0,
        )

    def _submit(self, model: str) -> Any:
        begun_s = time.monotonic()
        future = self._engine.submit(model, self._inputs, deadline_s=_DEADLINE_S, on_late="drop")
        future.add_done_callback(lambda done: self._answered(done, begun_s))
        return future

    def _answered(self, future: Any, begun_s: float) -> None:
        outcome = _outcome(future)
        self._outcomes[outcome] += 1
        if outcome == "served":
            self._latencies.append(time.monotonic() - begun_s)


def _outcome(future: Any) -> str:
    try:
        future.result()
    except CancelledError:
        return "cancelled"
    except DroppedError:
        return "dropped"
    except RejectedError:
        return "rejected"
    except ClosedError:
        return "unloaded"
    except CoinferError:
        return "failed"
    return "served"


def main(argv: list[str] | None = None) -> int:
    """Run the program; the exit status is 1 if anything did not stay flat."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args(argv)
    runs = [soak(name, 60 * options.minutes / len(ENGINES)) for name in ENGINES]
    print(table(runs))  # noqa: T201 - a program
    return int(any(faults(run) for run in runs))


if __name__ == "__main__":
    sys.exit(main())
