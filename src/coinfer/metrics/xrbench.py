"""XRBench's score: how many frames were completed, and how close to their deadlines.

From Kwon et al., "XRBench: an extended reality machine learning benchmark suite for the metaverse"
(MLSys 2023), with two differences: energy is not measured and counts as 1, and so does accuracy.

- A frame's realtime score is `1 / (1 + exp(15 x (finish - deadline in ms)))`, 0 if not completed.
- A model's quality of experience (QoE) is the share of its frames that were completed.
- A model's score is the mean realtime score of all its frames, times its QoE.
- The scenario's score is 100 times the mean over the models.

A model's frames are its requests and those that were never made because the request before them
in the cascade was not completed. The score is computed from counts; no scenario is needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from coinfer.core.request import Outcome, Request
from coinfer.metrics.counts import ModelCounts, RunCounts
from coinfer.metrics.latency import LatencySketch

__all__ = ["ModelScore", "ScoredCounts", "XRBenchScore", "qoe", "realtime_score", "xrbench_score"]

_STEEPNESS_PER_MS = 15.0
_MAX_EXPONENT = 700.0
"""Above this `exp` overflows; the score is 0 to the last bit well before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelScore:
    """One model's part of the score; None where it had no frame.

    Attributes:
        frames: Its requests, and those never made because what they come after failed.
        qoe: Share of the frames that were completed.
        realtime: Mean realtime score of all frames.
        score: Their product.
    """

    frames: int
    qoe: float | None = None
    realtime: float | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class XRBenchScore:
    """The score of a run.

    Attributes:
        score: In 0..100; None if no model had a frame.
        models: By name. Those without a frame do not count.
    """

    score: float | None
    models: Mapping[str, ModelScore]


@dataclass
class ScoredCounts(ModelCounts):
    """Counts of one model's requests, and the sum of their realtime scores."""

    realtime: float = 0.0

    def answer(self, request: Request, outcome: Outcome, now: float) -> None:
        """Count the answer of a request that was counted by `submit`."""
        super().answer(request, outcome, now)
        if outcome is Outcome.COMPLETED:
            self.realtime += realtime_score(now - request.deadline_s)


def realtime_score(late_s: float) -> float:
    """Return the realtime score of an answer that came so many seconds after its deadline.

    >>> realtime_score(0.0), realtime_score(-1.0), realtime_score(1.0)
    (0.5, 1.0, 0.0)
    """
    exponent = _STEEPNESS_PER_MS * late_s * 1e3
    return 0.0 if exponent > _MAX_EXPONENT else 1.0 / (1.0 + math.exp(exponent))


def qoe(run_counts: RunCounts) -> dict[str, float]:
    """Return the quality of experience of each model that had a frame."""
    return {
        name: counts.completed / frames
        for name, counts in _all_counts(run_counts).items()
        if (frames := _frames(name, counts, run_counts))
    }


def xrbench_score(run_counts: RunCounts, models: Iterable[str] = ()) -> XRBenchScore | None:
    """Compute the score; None if the counts were not kept for it, as `ScoredCounts`.

    Args:
        run_counts: The counts of a run.
        models: Listed first and in this order, also those without a frame.
    """
    scored = _all_counts(run_counts)
    kept = {name: counts for name, counts in scored.items() if isinstance(counts, ScoredCounts)}
    if not kept:
        return None
    rows = dict.fromkeys(models, ModelScore(frames=0))
    for name, counts in kept.items():
        rows[name] = _model_score(counts, _frames(name, counts, run_counts))
    scores = [row.score for row in rows.values() if row.score is not None]
    mean = 100 * math.fsum(scores) / len(scores) if scores else None
    return XRBenchScore(score=mean, models=rows)


def _frames(name: str, counts: ModelCounts, run_counts: RunCounts) -> int:
    return counts.submitted + run_counts.withheld.get(name, 0)


def _model_score(counts: ScoredCounts, frames: int) -> ModelScore:
    if not frames:
        return ModelScore(frames=0)
    share, realtime = counts.completed / frames, counts.realtime / frames
    return ModelScore(frames=frames, qoe=share, realtime=realtime, score=realtime * share)


def _all_counts(run_counts: RunCounts) -> dict[str, ModelCounts]:
    """Return the counts by model, also of those all of whose requests were withheld."""
    found = dict(run_counts.models)
    kind = ScoredCounts if any(isinstance(t, ScoredCounts) for t in found.values()) else ModelCounts
    for name in run_counts.withheld:
        found.setdefault(name, kind(LatencySketch()))
    return found
