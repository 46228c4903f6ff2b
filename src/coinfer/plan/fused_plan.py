"""Fused plan: one graph that answers several models in one run, and where it is loaded. A value.

Its members stay loaded each for itself too: they are served alone where that is sooner, and where
an execution of several failed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from coinfer.plan.choice import Choice
from coinfer.plan.variant import GraphFile

__all__ = ["FusedPlan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedPlan:
    """A variant that answers one request of each of several models in one run.

    Attributes:
        models: Its members, in the order of its inputs.
        graph: Its file, by an absolute path; in a saved plan, relative to its folder.
        batch: Samples per request and member that the times were measured at.
        processors: Where it is loaded.
        choices: Why.
    """

    models: tuple[str, ...]
    graph: GraphFile
    batch: int = 1
    processors: tuple[str, ...] = ()
    choices: tuple[Choice, ...] = field(default=())
