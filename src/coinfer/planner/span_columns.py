"""Span columns: the columns of models that are cut, each span looked at as a model of its own.

Under load, requests go the way of the fewest core-seconds: its spans are asked for as often as
their model, the others a tenth as often. A span has the model's deadline in proportion to its share
of the time, and its own curve over widths.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from coinfer.graph.span_choice import plan
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.machine.span import Span
from coinfer.planner.assignment import Pairs
from coinfer.planner.columns import Columns, Demand

__all__ = ["SpanColumns"]

_SELDOM = 0.1
"""Of the requests, those that go another way than under load."""


class _Part(NamedTuple):
    """One span of one model.

    Attributes:
        model: The model.
        span: The span.
        share: Of the model's requests, those that are expected to run it.
        work: Its share of the least time of that way.
    """

    model: str
    span: Span
    share: float
    work: float


@dataclasses.dataclass(frozen=True, slots=True)
class SpanColumns:
    """Spans as models of their own, and back.

    Attributes:
        parts: By name, what stands for a span.

    >>> from coinfer.machine.profile import Measurement, ProfileKey
    >>> one = Measurement(seconds=(0.01,))
    >>> spans = (Span(0, 0), Span(1, 1))
    >>> cut = Profile({ProfileKey("m", "p", 1, span): one for span in spans})
    >>> p = Processor(name="p", backend="null", units=frozenset({"core0"}))
    >>> found = SpanColumns.of(cut, ["m"], [p])
    >>> sorted(found.parts), found.apart(cut).models()
    (['m[0-0]', 'm[1-1]'], ('m[0-0]', 'm[1-1]'))
    >>> found.demand(Demand(deadlines={"m": 0.1})).deadlines
    {'m[0-0]': 0.05, 'm[1-1]': 0.05}
    """

    parts: Mapping[str, _Part]

    @classmethod
    def of(
        cls, profile: Profile, models: Iterable[str], processors: Iterable[Processor]
    ) -> SpanColumns:
        """Name the spans of some models that a profile has times of."""
        cores = {p.name: len(p.units) for p in processors}
        parts = [part for model in models for part in _parts(profile, model, cores)]
        return cls({_name(part.model, part.span): part for part in parts})

    def apart(self, profile: Profile) -> Profile:
        """Return the entries of the spans, each under the name that stands for it."""
        return Profile(
            {
                key._replace(model=name, span=Span()): entry
                for key, entry in profile
                if (name := _name(key.model, key.span)) in self.parts
            }
        )

    def demand(self, demand: Demand) -> Demand:
        """Return what is asked for with spans in place of their models.

        How evenly requests come is told by the first span of each.
        """
        cut = {part.model for part in self.parts.values()}
        rates = {m: rate for m, rate in demand.rates.items() if m not in cut}
        deadlines = {m: limit for m, limit in demand.deadlines.items() if m not in cut}
        firsts: dict[str, str] = {}
        for name, part in self.parts.items():
            if (demand.rates and part.model in demand.rates) or not demand.is_absolute:
                rates[name] = demand.rates.get(part.model, 1.0) * part.share
            if part.model in demand.deadlines:
                deadlines[name] = demand.deadlines[part.model] * part.work
            firsts.setdefault(part.model, name)

        def arrivals() -> Iterator[tuple[float, str]]:
            return ((at_s, firsts.get(model, model)) for at_s, model in demand.arrivals())

        return dataclasses.replace(demand, rates=rates, deadlines=deadlines, arrivals=arrivals)

    def kept(self, profile: Profile, columns: Mapping[str, Columns]) -> Profile:
        """Return of the spans' entries those on the processors that were chosen."""
        stays = {
            (part.model, part.span, processor)
            for name, part in self.parts.items()
            for processor in columns[name].processors
        }
        return profile.where(lambda key: (key.model, key.span, key.processor) in stays)

    def pairs(self, asked: Pairs) -> Pairs:
        """Return (model, processor) pairs of models as those of all of their spans."""
        named = ((name, part.model) for name, part in self.parts.items())
        return frozenset((name, p) for name, model in named for m, p in asked if m == model)

    def of_model(self, model: str) -> list[tuple[str, Span]]:
        """Return the names that stand for a model's spans, and these."""
        return [(name, part.span) for name, part in self.parts.items() if part.model == model]


def _parts(profile: Profile, model: str, cores: Mapping[str, int]) -> list[_Part]:
    least: dict[Span, float] = {}
    work: dict[Span, dict[str, float]] = {}
    for key, entry in profile.restricted([model]).at_smallest:
        least[key.span] = min(entry.mean_s, least.get(key.span, entry.mean_s))
        work.setdefault(key.span, {})[key.processor] = entry.mean_s * cores[key.processor]
    way = {span for span, _ in plan(dict(sorted(work.items())), profile.units(model))[0]}
    way_s = sum(least[span] for span in way)
    return [
        _Part(model, span, 1.0 if span in way else _SELDOM, min(least[span] / way_s, 1.0))
        for span in sorted(least)
    ]


def _name(model: str, span: Span) -> str:
    return f"{model}[{span.first}-{span.last}]"
