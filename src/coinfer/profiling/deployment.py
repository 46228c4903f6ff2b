"""Deployment: models on processors as they will run together, for contention and cold starts.

Says which models a processor runs, loads them, and remembers what was measured of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TypeVar

from coinfer.backends.base import Backend, Tensors, caller_cores
from coinfer.backends.loading import load
from coinfer.backends.patience import closing_unless_hung
from coinfer.hardware.environment import cpu_name
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile
from coinfer.model import Model
from coinfer.profiling.cache import ProfileCache
from coinfer.profiling.identity import identity, key_parts
from coinfer.profiling.patient_sessions import WatchedSession, running

__all__ = ["Deployment", "Progress", "Rounds", "announced"]

T = TypeVar("T")

Progress = Callable[[int, int, str], None]
"""Called as `progress(done, total, what)` before each measurement and once at the end."""

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
        processors: Those in use.
        profile: Which model runs where; its times are not used.
        feeds: Prepared inputs by model.
        backends: By name.
        cache: Where measurements are kept; None: nowhere.
        effort: How long to measure.
        known: What was measured or found in the cache, by the identity of its keys.
    """

    models: Mapping[str, Model]
    processors: Sequence[Processor]
    profile: Profile
    feeds: Mapping[str, Sequence[Tensors]]
    backends: Mapping[str, Backend]
    cache: ProfileCache | None = None
    effort: Rounds = Rounds()
    known: dict[str, Mapping[str, Measurement]] = field(default_factory=dict, init=False)

    @property
    def used(self) -> list[Processor]:
        """The processors that run a model."""
        return [processor for processor in self.processors if self.runs(processor)]

    def runs(self, processor: Processor) -> list[str]:
        """Return the models that a processor runs, the first few."""
        able = [m for m in self.models if self.profile.expected_s(m, processor.name) is not None]
        return able[:_MOST_MODELS]

    def parts(self, processor: Processor) -> list[dict[str, object]]:
        """Return the identity of what is run on a processor."""
        backend, machine = self.backends[processor.backend], cpu_name()
        return [
            key_parts(name, self.models[name], processor, 1, self.feeds[name][:1], backend, machine)
            for name in self.runs(processor)
        ]

    def caller_cores(self, processor: Processor) -> tuple[int, ...]:
        """Return the cores to which the engine's worker is pinned."""
        return caller_cores(self.backends[processor.backend], processor)

    def loaded(
        self, processor: Processor, stack: ExitStack
    ) -> dict[str, tuple[WatchedSession, Sequence[Tensors]]]:
        """Load a processor's models; return sessions and inputs, closed by the stack."""
        found = {}
        for name in self.runs(processor):
            model = self.models[name].renamed(name)
            session = load(self.backends[processor.backend], model, processor)
            stack.enter_context(closing_unless_hung(session))
            watched = WatchedSession(session, running(model, processor))
            found[name] = (watched, self.feeds[name])
        return found

    def measured(
        self,
        keys: Mapping[str, Mapping[str, object]],
        measure: Callable[[], Mapping[str, Measurement]],
    ) -> Mapping[str, Measurement]:
        """Return what is kept under these keys, or measure it and keep it.

        Equal keys are measured once, also where there is no cache.
        """
        twin = identity(keys)
        if twin not in self.known:
            self.known[twin] = self._recalled(keys) or self._remembered(keys, measure())
        return self.known[twin]

    def _recalled(self, keys: Mapping[str, Mapping[str, object]]) -> dict[str, Measurement] | None:
        """Return what the cache has under all of these keys; None if one is missing."""
        if self.cache is None:
            return None
        kept = {name: self.cache.get(key, self.effort.amounts) for name, key in keys.items()}
        known = {name: found for name, found in kept.items() if found is not None}
        return known if len(known) == len(keys) else None

    def _remembered(
        self, keys: Mapping[str, Mapping[str, object]], found: Mapping[str, Measurement]
    ) -> Mapping[str, Measurement]:
        if self.cache is not None:
            for name, key in keys.items():
                self.cache.put(key, found[name], self.effort.amounts)
        return found


def announced(
    items: Sequence[T], name: Callable[[T], str], progress: Progress | None
) -> Iterator[T]:
    """Yield items; tell before each one, and at the end, how many are done."""
    tell = progress or (lambda _done, _total, _what: None)
    for done, item in enumerate(items):
        tell(done, len(items), name(item))
        yield item
    tell(len(items), len(items), "measured")
