"""Arrival processes as a scenario states them. `times` draws the times."""

from __future__ import annotations

import enum
import math
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import (
    BeforeValidator,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationInfo,
    model_validator,
)

from coinfer.documents.fields import (
    Count,
    FilePath,
    NonNegativeSeconds,
    PositiveNumber,
    PositiveRate,
    Probability,
    Section,
    shown,
    wrong,
)

__all__ = [
    "MOST_FOLLOWERS",
    "After",
    "Closed",
    "FollowerCount",
    "Gamma",
    "Mix",
    "Offline",
    "Order",
    "Periodic",
    "Poisson",
    "PoissonCount",
    "Process",
    "Trace",
]


MOST_FOLLOWERS = 100_000
"""How many requests may follow one, on average."""

_FIXED: TypeAdapter[int] = TypeAdapter(Annotated[Count, Field(le=MOST_FOLLOWERS)])


class Periodic(Section):
    """One request per period, like the frames of a camera.

    Attributes:
        rate_per_s: Requests per second.
        phase_s: When the first one is due.
        jitter_s: Each is late by a uniform random time up to this; at most one period.
    """

    rate_per_s: PositiveRate = Field(alias="periodic")
    phase_s: NonNegativeSeconds = Field(alias="phase", default=0.0)
    jitter_s: NonNegativeSeconds = Field(alias="jitter", default=0.0)

    @model_validator(mode="after")
    def _in_order(self) -> Periodic:
        if self.jitter_s * self.rate_per_s > 1:
            raise wrong(
                f"jitter of {self.jitter_s:g} s is longer than the period of "
                f"{1 / self.rate_per_s:g} s; requests would overtake each other"
            )
        return self


class Poisson(Section):
    """Independent users: exponential times between requests."""

    rate_per_s: PositiveRate = Field(alias="poisson")


class Gamma(Section):
    """Bursts: Gamma-distributed times between requests.

    Attributes:
        rate_per_s: Requests per second on average.
        cv: Coefficient of variation of the times between requests. 1 is Poisson, more is burstier.
    """

    rate_per_s: PositiveRate = Field(alias="gamma")
    cv: PositiveNumber


class Closed(Section):
    """A closed loop: always this many in flight, the next one due when an answer comes."""

    in_flight: Count = Field(alias="closed")


_TIMES: TypeAdapter[tuple[float, ...]] = TypeAdapter(
    Annotated[tuple[NonNegativeSeconds, ...], Field(min_length=1)]
)
_FILE: TypeAdapter[Path] = TypeAdapter(FilePath)


def _recorded(value: Any, info: ValidationInfo) -> Path | tuple[float, ...]:
    """Choose the one form that is meant, so that errors speak of that one only."""
    if isinstance(value, list | tuple):
        return tuple(sorted(_TIMES.validate_python(value, context=info.context)))
    return _FILE.validate_python(value, context=info.context)


class Trace(Section):
    """Recorded times.

    Attributes:
        source: The file that they are in, or the times in seconds from the start, in order.
    """

    source: Annotated[Path | tuple[float, ...], PlainValidator(_recorded)] = Field(alias="trace")


class PoissonCount(Section):
    """A number that differs from one request to the next, as of objects in a picture.

    Attributes:
        mean: How many on average.
    """

    mean: Annotated[PositiveNumber, Field(alias="poisson", le=MOST_FOLLOWERS)]

    @property
    def largest(self) -> int:
        """Where the distribution is cut off: ten standard deviations above the mean, and ten."""
        return math.floor(self.mean + 10 * math.sqrt(self.mean) + 10)


def _count(value: Any, info: ValidationInfo) -> Any:
    """Choose the one form that is meant, so that errors speak of that one only."""
    if isinstance(value, PoissonCount):
        return value
    if isinstance(value, dict):
        return PoissonCount.model_validate(value, context=info.context)
    if isinstance(value, list | str | None):
        raise wrong(f"expected a whole number or {{poisson: MEAN}}, got {shown(value)}")
    return _FIXED.validate_python(value)


FollowerCount: TypeAlias = Annotated[int | PoissonCount, PlainValidator(_count)]
"""How many requests follow one: always so many, or a number that is drawn."""


class After(Section):
    """A cascade: a request follows each completed request of another model, or some of them.

    It belongs to the frame that the other request belongs to, so its latency and its deadline
    count from the moment at which the first request of the cascade was due.

    Attributes:
        model: The other model.
        probability: That a completed request is followed. It is drawn for each frame by its number
            and the scenario's seed, whatever happens in the run.
        count: How many requests follow then, as a detector's crops: always so many, or a number
            that is drawn in the same way and may be 0.
    """

    model: str = Field(alias="after")
    probability: Probability = 1.0
    count: FollowerCount = 1

    @property
    def mean_if_any(self) -> float:
        """How many requests follow on average, if the probability lets any follow."""
        return self.count if isinstance(self.count, int) else self.count.mean

    @property
    def mean_count(self) -> float:
        """How many requests follow a completed one on average."""
        return self.probability * self.mean_if_any

    @property
    def largest_count(self) -> int:
        """How many requests follow a completed one at most."""
        return self.count if isinstance(self.count, int) else self.count.largest


class Mix(Section):
    """One closed loop over several models, whose counts stay in proportion to the weights.

    Attributes:
        weights: By model; empty means equal weights for all models.
        in_flight: Requests in flight in all.
    """

    weights: dict[str, PositiveNumber] = Field(default_factory=dict)
    in_flight: Count


class Order(enum.Enum):
    """In which order requests that are all due at once are submitted."""

    SHUFFLED = "shuffled"
    """At random, by the scenario's seed."""
    INTERLEAVED = "interleaved"
    """Models in turn, in proportion to their counts."""
    GROUPED = "grouped"
    """All of the first model, then all of the second, and so on."""


class Offline(Section):
    """A finite number of requests that are all due at the start (MLPerf's name for it).

    It is measured from the start to the last answer; it has neither a duration nor a warm-up.

    Attributes:
        counts: How many of each model.
        order: In which order they are submitted.
    """

    counts: Annotated[dict[str, Count], Field(min_length=1)]
    order: Order = Order.SHUFFLED


_KINDS: dict[str, type[Periodic | Poisson | Gamma | Closed | Trace | After]] = {
    "periodic": Periodic,
    "poisson": Poisson,
    "gamma": Gamma,
    "closed": Closed,
    "trace": Trace,
    "after": After,
}


def _pick(value: Any, info: ValidationInfo) -> Any:
    """Choose the one class that is meant, so that errors speak of that one only."""
    if isinstance(value, Section):
        return value
    if not isinstance(value, dict):
        raise wrong("expected an arrival process, e.g. {periodic: 30/s}")
    kinds = [key for key in value if key in _KINDS]
    if len(kinds) != 1:
        found = f"both {' and '.join(kinds)} are given" if kinds else "no process is named"
        raise wrong(f"{found}; give exactly one of {', '.join(_KINDS)}, e.g. {{periodic: 30/s}}")
    return _KINDS[kinds[0]].model_validate(value, context=info.context)


Process: TypeAlias = Annotated[
    Periodic | Poisson | Gamma | Closed | Trace | After, BeforeValidator(_pick)
]
"""How the requests of one model arrive."""
