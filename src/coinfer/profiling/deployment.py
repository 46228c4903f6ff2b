"""Deployment: models on processors as they will run together, for contention and cold starts.

Says which models a processor runs, loads them, and remembers what was measured of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

from coinfer.backends.base import Backend, Session, Tensors, caller_cores
from coinfer.backends.registry import find_backends
from coinfer.backends.sessions import CREATION_LOCK
from coinfer.hardware.environment import cpu_name
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile
from coinfer.model import Model
from coinfer.profiling.cache import ProfileCache
from coinfer.profiling.identity import key_parts

__all__ = ["Deployment", "Rounds"]

_MOST_MODELS = 6
"""More models than this would only cost memory and time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """How long to measure a processor, or a pair of them.

    Attributes:
        min_rounds: Counted rounds of each kind at least.
        max_s: Stop after this many seconds.
    """

    min_rounds: int = 4
    max_s: float = 3.0

    @property
    def amounts(self) -> tuple[float, ...]:
        """Its numbers, each the larger the more is measured: so that efforts can be compared."""
        return (self.min_rounds, self.max_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Models, their inputs, and where they run.

    Attributes:
        models: By name.
        feeds: Prepared inputs by model.
        backends: By name.
        profile: Which model runs where; its times are not used.
        cache: Where measurements are kept; None: nowhere.
    """

    models: Mapping[str, Model]
    feeds: Mapping[str, Sequence[Tensors]]
    backends: Mapping[str, Backend]
    profile: Profile
    cache: ProfileCache | None

    @classmethod
    def of(
        cls,
        models: Mapping[str, Model],
        processors: Sequence[Processor],
        profile: Profile,
        feeds: Mapping[str, Sequence[Tensors]],
        backends: Mapping[str, Backend] | None = None,
        cache: ProfileCache | None = None,
    ) -> Self:
        """Make a deployment; backends that are not given are looked up."""
        return cls(
            models=models,
            feeds=feeds,
            backends=find_backends(processors, backends or {}),
            profile=profile,
            cache=cache,
        )

    def runs(self, processor: Processor) -> list[str]:
        """Return the models that a processor runs, the first few."""
        able = [m for m in self.models if self.profile.expected_s(m, processor.name) is not None]
        return able[:_MOST_MODELS]

    def parts(self, processor: Processor) -> list[dict[str, object]]:
        """Return the identity of what is run on a processor."""
        backend = self.backends[processor.backend]
        return [
            key_parts(
                name,
                self.models[name].fingerprint,
                processor,
                1,
                self.feeds[name][:1],
                backend,
                cpu_name(),
            )
            for name in self.runs(processor)
        ]

    def caller_cores(self, processor: Processor) -> tuple[int, ...]:
        """Return the cores to which the engine's worker is pinned."""
        return caller_cores(self.backends[processor.backend], processor)

    def loaded(
        self, processor: Processor, stack: ExitStack
    ) -> dict[str, tuple[Session, Sequence[Tensors]]]:
        """Load a processor's models; return sessions and inputs, closed by the stack."""
        found = {}
        for name in self.runs(processor):
            with CREATION_LOCK:
                session = self.backends[processor.backend].load(self.models[name], processor)
            stack.callback(session.close)
            found[name] = (session, self.feeds[name])
        return found

    def remembered(
        self,
        keys: Mapping[str, Mapping[str, object]],
        measure: Callable[[], Mapping[str, Measurement]],
        effort: Rounds,
    ) -> dict[str, Measurement]:
        """Return what is kept under all of these keys, or measure it so long and keep it."""
        cache, amounts = self.cache, effort.amounts
        if cache is not None:
            kept = {name: cache.get(key, amounts) for name, key in keys.items()}
            known = {name: found for name, found in kept.items() if found is not None}
            if len(known) == len(keys):
                return known
        found = dict(measure())
        if cache is not None:
            for name, key in keys.items():
                cache.put(key, found[name], amounts)
        return found
