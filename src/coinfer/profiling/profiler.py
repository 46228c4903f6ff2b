"""Profiler: how measurements are made and where they are kept, for whoever makes many of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from coinfer.backends.base import Backend, Tensors
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.model import Model
from coinfer.plan.work import Work
from coinfer.profiling.agreement import Agreement
from coinfer.profiling.agreements import agreements
from coinfer.profiling.budget import Budget
from coinfer.profiling.cache import ProfileCache
from coinfer.profiling.deployment import Progress
from coinfer.profiling.measure import Effort
from coinfer.profiling.model_profiles import profile_models
from coinfer.profiling.skip import Skip

__all__ = ["Profiler"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiler:
    """What all measurements of a preparation have in common.

    Attributes:
        effort: When a measurement is good enough.
        cache: Where to look first and to keep results; None measures everything.
        backends: By name, for those that are not to be looked up.
        progress: Called before each measurement.
        budget: How long all measurements together may take.
    """

    effort: Effort = Effort()
    cache: ProfileCache | None = None
    backends: Mapping[str, Backend] = field(default_factory=dict)
    progress: Progress | None = None
    budget: Budget = field(default_factory=Budget)

    def agreements(
        self,
        model: Model,
        processors: Iterable[Processor],
        tolerance: float,
        *,
        feeds: Sequence[Tensors],
        wide: frozenset[str] | None = None,
    ) -> dict[str, Agreement]:
        """Compare a model with the reference; arguments and result as of `agreements`.

        That takes time of the budget, and is done when it is spent too.
        """
        with self.budget.spending():
            return agreements(
                model,
                processors,
                tolerance,
                feeds=feeds,
                cache=self.cache,
                backends=self.backends,
                wide=wide,
            )

    def profile(
        self,
        models: Mapping[str, Model],
        processors: Sequence[Processor],
        *,
        batch: int,
        feeds: Mapping[str, Sequence[Tensors]],
        skipped: Callable[[Skip], None],
        expected: Mapping[str, Mapping[str, float]] | None = None,
        works: Mapping[str, Work] = MappingProxyType({}),
    ) -> Profile:
        """Measure models at one batch size; arguments and result as of `profile_models`."""
        return profile_models(
            models,
            processors,
            batches=(batch,),
            effort=self.effort,
            cache=self.cache,
            backends=self.backends,
            feeds=feeds,
            progress=self.progress,
            skipped=skipped,
            budget=self.budget,
            expected=expected,
            works=works,
        )
