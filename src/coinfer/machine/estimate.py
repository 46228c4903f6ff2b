"""Estimate: the time of a model on a processor, from those of other models there. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

__all__ = ["by_analogy"]


def by_analogy(
    seconds: Mapping[str, Mapping[str, float]], model: str, processor: str
) -> float | None:
    """Expect of a model what other models show: how much longer one processor takes than another.

    Args:
        seconds: What was measured, `{model: {processor: seconds}}`.
        model: Of this one the seconds on some other processor are known.
        processor: Where it was not measured.

    Returns:
        The geometric mean over the processors on which the model is known, each scaled by the
        geometric mean of the ratio that other models show; None if no other model shows one.

    >>> seconds = {"a": {"p": 1.0, "q": 3.0}, "b": {"p": 2.0}}
    >>> round(by_analogy(seconds, "b", "q"), 6), by_analogy(seconds, "b", "r")
    (6.0, None)
    """
    others = [row for name, row in seconds.items() if name != model and processor in row]
    found = []
    for known, own_s in seconds.get(model, {}).items():
        ratios = [row[processor] / row[known] for row in others if row.get(known)]
        if ratios and own_s and all(ratios):
            found.append(own_s * statistics.geometric_mean(ratios))
    return statistics.geometric_mean(found) if found else None
