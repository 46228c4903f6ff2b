"""Statistics: what became of each model's requests, as Triton counts it. An observer of the core.

Parsing requests and writing answers is not in these times: they begin when the engine gets a
request and end when it has the answer.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from coinfer.core.commands import Command, Reply, Run
from coinfer.core.events import Event
from coinfer.core.request import Outcome
from coinfer.metrics.latency import ExactLatencies
from coinfer.metrics.summary import LatencySummary, latency_summary
from coinfer.runtime.answer_counts import LAST
from coinfer.server.telemetry.times import RequestTimes, Times

__all__ = ["ModelStatistics", "Statistics"]

_NS = 1e9
_LAST = 20
_REJECTED = "REJECTED"
_COMPLETED = Outcome.COMPLETED


@dataclass(slots=True, eq=False)
class ModelStatistics:
    """What became of the requests of one version of a model; all seconds are sums.

    Attributes:
        completed: Requests answered with a result.
        total_s: From the moment they came to the answer.
        failures: Requests answered with an error, by Triton's word for the kind.
        refused: Those of them that the engine never got, because too much waited or ended.
        failed_s: From the moment they came to the error.
        samples: In the completed requests.
        executions: Runs that started.
        batches: By samples in a run: how many requests, and their seconds from its begin.
        last_s: When the last was answered, in seconds since 1970; 0: none was.
        late: Of an ensemble, completed requests that were answered after their deadline.
        dropped: Of an ensemble, failures because the deadline passed before a stage.
        latencies_s: Of an ensemble, seconds of the last completed requests.
    """

    completed: int = 0
    total_s: float = 0.0
    failures: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    refused: int = 0
    failed_s: float = 0.0
    samples: int = 0
    executions: int = 0
    batches: dict[int, list[float]] = field(default_factory=dict)
    last_s: float = 0.0
    late: int = 0
    dropped: int = 0
    latencies_s: deque[float] = field(default_factory=partial(deque[float], maxlen=LAST))

    @property
    def run_s(self) -> float:
        """Seconds of the completed requests from when they began to run to the answer."""
        return sum(seconds for _, seconds in list(self.batches.values()))

    @property
    def queue_s(self) -> float:
        """Seconds of the completed requests until they began to run."""
        return max(0.0, self.total_s - self.run_s) if self.batches else 0.0

    @property
    def failed(self) -> int:
        """Requests answered with an error."""
        return sum(self.failures.values())

    def outcomes(self) -> dict[str, int]:
        """Return the requests of an ensemble by what became of them."""
        failures = dict(self.failures)
        rejected, cancelled = failures.pop(_REJECTED, 0), failures.pop("CANCELED", 0)
        return {
            "completed": self.completed,
            "late": self.late,
            "dropped": self.dropped,
            "failed": sum(failures.values()),
            "rejected": rejected - self.dropped,
            "cancelled": cancelled,
        }

    def latency_ms(self) -> LatencySummary:
        """Return the latencies of an ensemble's last completed requests."""
        latencies = ExactLatencies()
        for seconds in list(self.latencies_s):
            latencies.add(seconds)
        return latency_summary(latencies)

    def to_json(self) -> dict[str, Any]:
        """Return the fields of Triton's `ModelStatistics` that follow from these counts."""
        done, none = self.completed, _duration(0, 0.0)
        batches = [
            {
                "batch_size": size,
                "compute_input": _duration(int(count), 0.0),
                "compute_infer": _duration(int(count), seconds),
                "compute_output": _duration(int(count), 0.0),
            }
            for size, (count, seconds) in sorted(self.batches.items())
        ]
        return {
            "last_inference": int(self.last_s * 1000),
            "inference_count": self.samples,
            "execution_count": self.executions,
            "inference_stats": {
                "success": _duration(done, self.total_s),
                "fail": _duration(self.failed, self.failed_s),
                "queue": _duration(done, self.queue_s),
                "compute_input": _duration(done, 0.0),
                "compute_infer": _duration(done, self.run_s),
                "compute_output": _duration(done, 0.0),
                "cache_hit": none,
                "cache_miss": none,
            },
            "batch_stats": batches,
        }


class Statistics:
    """Counts while the engine works. The owner of the core calls it, so it is quick.

    Attributes:
        models: By the engine's name of a model.
        last_misses: The last requests that were refused, dropped or failed: model, moment in
            seconds since 1970, and why.
        times: Where the times of each request go; None: nobody wants them.
    """

    def __init__(self) -> None:
        self.models: dict[str, ModelStatistics] = defaultdict(ModelStatistics)
        self.last_misses: deque[tuple[str, float, str]] = deque(maxlen=_LAST)
        self.times: RequestTimes | None = None
        self._started: dict[int, tuple[float, int]] = {}
        self._ending = threading.Lock()

    def observe(self, event: Event, commands: Sequence[Command], now: float) -> None:  # noqa: ARG002
        """Note a step of the core."""
        for command in commands:
            kind = type(command)
            if kind is Run:
                execution = command.execution  # type: ignore[union-attr]
                requests = execution.requests
                batch = requests[0].batch if len(requests) == 1 else execution.batch
                if execution.span.first == 0:
                    self.models[requests[0].model].executions += 1
                started, moment = self._started, (now, batch)
                for request in requests:
                    started.setdefault(request.id, moment)
            elif kind is Reply:
                self._answered(command, now)  # type: ignore[arg-type]

    def refused(self, model: str, reason: str, why: str) -> None:
        """Count a request that the engine never got; any thread may.

        Args:
            model: The engine's name of it.
            reason: Triton's word for the kind.
            why: In a sentence.
        """
        with self._ending:  # front ends have several threads
            found = self.models[model]
            found.failures[reason] += 1
            found.refused += reason == _REJECTED
        if reason == _REJECTED:
            self.last_misses.append((model, time.time(), why))

    def forget(self, model: str) -> None:
        """Forget the counts of a model: it is unloaded, and nobody can ask for them."""
        self.models.pop(model, None)

    def ended(
        self,
        model: str,
        seconds: float,
        reason: str = "",
        why: str = "",
        *,
        is_late: bool = False,
        is_dropped: bool = False,
    ) -> None:
        """Count a request to an ensemble, whose stages are counted by themselves.

        Args:
            model: The engine's name of it.
            seconds: It took.
            reason: Triton's word for the kind of failure; empty: it has a result.
            why: In a sentence; empty: that is not told.
            is_late: Whether its deadline passed before the result.
            is_dropped: Whether it failed because its deadline passed before a stage.
        """
        with self._ending:  # on any thread
            found = self.models[model]
            found.last_s = time.time()
            if reason:
                found.failures[reason] += 1
                found.failed_s += seconds
                found.dropped += is_dropped
            else:
                found.completed += 1
                found.late += is_late
                found.latencies_s.append(seconds)
                found.samples += 1
                found.executions += 1
                found.total_s += seconds
        if why:
            self.last_misses.append((model, time.time(), why))

    def _answered(self, reply: Reply, now: float) -> None:
        request, outcome, reason = reply
        found = self.models[request.model]
        started = self._started.pop(request.id, None)
        began_s, batch = started or (now, request.batch)
        if self.times is not None:
            moment = None if started is None else began_s
            self.times.add(request.id, Times(request.arrival_s, moment, now))
        found.last_s = time.time()
        if outcome is _COMPLETED:
            found.completed += 1
            found.samples += request.batch
            found.total_s += now - request.arrival_s
            of_size = found.batches.get(batch)
            if of_size is None:
                of_size = found.batches[batch] = [0, 0.0]
            of_size[0] += 1
            of_size[1] += now - began_s
            return
        found.failures[_KINDS[outcome]] += 1
        found.failed_s += now - request.arrival_s
        if outcome is not Outcome.CANCELLED:
            self.last_misses.append((request.model, time.time(), reason))


_KINDS = {
    Outcome.FAILED: "BACKEND",
    Outcome.CANCELLED: "CANCELED",
    Outcome.DROPPED: _REJECTED,
    Outcome.REJECTED: _REJECTED,
}


def _duration(count: int, seconds: float) -> dict[str, int]:
    return {"count": count, "ns": int(seconds * _NS)}
