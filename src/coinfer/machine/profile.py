"""Profile: measured seconds and bytes per (model, span, processor, batch). Pure data.

Knows neither how the numbers were measured (`profiling`) nor who reads them (`core`, `sim`,
`planner`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from coinfer.documents.raw import parse_json, read_bytes
from coinfer.documents.writing import replace_file
from coinfer.errors import ConfigurationError
from coinfer.machine.span import Span

__all__ = ["STEP", "Measurement", "Profile", "ProfileKey", "work_ratio"]

_FORMAT = "coinfer-profile/1"

STEP = 1.25
"""The work of requests whose classes of sizes are neighbours differs by at most this factor."""


def work_ratio(shape: int) -> float:
    """Return how many times the work of class 0 a class of sizes stands for."""
    return STEP**shape


class ProfileKey(NamedTuple):
    """What was measured: a span of a model on a processor at a batch size and a class of sizes.

    Attributes:
        model: Name of the model.
        processor: Name of the processor.
        batch: Samples per run.
        span: The unit subgraphs.
        shape: The class of sizes of other open dimensions (`coinfer.plan.work`); 0 is that of the
            model's smallest sample.
    """

    model: str
    processor: str
    batch: int = 1
    span: Span = Span()
    shape: int = 0


_LEAST, _MOST = 1e-100, 1e18
"""Ratios of times between these can be computed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """The distribution of one key.

    Attributes:
        seconds: Service times of the counted runs, in seconds, in the order of measuring.
        load_s: Seconds to load and compile.
        resident_bytes: Memory that stays taken while the model is loaded.
        run_bytes: Memory taken on top of that while it runs.
        error: Relative output error ||out - ref|| / ||ref||: in fp32 against the reference, below
            it against fp32; None if not measured.
        estimated: Whether the seconds were not measured but expected from what was.
        interpolated: Whether they were expected from narrower and wider runs that were measured.
    """

    seconds: tuple[float, ...]
    load_s: float = 0.0
    resident_bytes: int = 0
    run_bytes: int = 0
    error: float | None = None
    estimated: bool = False
    interpolated: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be a service time."""
        if not self.seconds or not all(s == 0 or _LEAST <= s <= _MOST for s in self.seconds):
            raise ConfigurationError(
                f"a measurement needs times that are 0 or from {_LEAST:g} to {_MOST:g} seconds, "
                f"got {self.seconds[:3]}"
            )

    @property
    def origin(self) -> str:
        """How the seconds are known, in a word; empty if they were measured."""
        if self.interpolated:
            return "interpolated"
        return "estimated" if self.estimated else ""

    @property
    def mean_s(self) -> float:
        """Mean service time in seconds: what throughput follows."""
        return sum(self.seconds) / len(self.seconds)

    def quantile_s(self, q: float) -> float:
        """Empirical quantile, linear between order statistics; `q` in 0..1."""
        return float(np.quantile(self.seconds, q))

    @property
    def median_s(self) -> float:
        """Median service time in seconds."""
        return self.quantile_s(0.5)


@dataclass(frozen=True, slots=True)
class Profile:
    """Measurements by key, with lookups that interpolate over the batch size and other sizes.

    >>> p = Profile({ProfileKey("a", "cpu0"): Measurement(seconds=(0.010, 0.012))})
    >>> round(p.expected_s("a", "cpu0"), 6), p.expected_s("a", "gpu")
    (0.011, None)
    """

    entries: Mapping[ProfileKey, Measurement] = field(default_factory=dict)

    @classmethod
    def from_seconds(cls, table: Mapping[str, Mapping[str, float]]) -> Self:
        """Build a profile from mean seconds, `{model: {processor: seconds}}`.

        >>> Profile.from_seconds({"a": {"cpu0": 0.01}}).expected_s("a", "cpu0", batch=2)
        0.02
        """
        return cls(
            {
                ProfileKey(model, processor): Measurement(seconds=(float(seconds),))
                for model, row in table.items()
                for processor, seconds in row.items()
            }
        )

    def expected_s(
        self, model: str, processor: str, *, batch: int = 1, span: Span = Span(), shape: int = 0
    ) -> float | None:
        """Mean seconds of a run, or None if the processor cannot run it.

        Between two measured batch sizes it is linear; outside them it scales with the batch. Over
        the classes of sizes it is linear in the work that they stand for, and scales with that
        outside what was measured.

        >>> p = Profile({ProfileKey("a", "cpu0"): Measurement(seconds=(0.010,))})
        >>> round(p.expected_s("a", "cpu0", shape=2), 6)
        0.015625
        """
        exact = self.entries.get(ProfileKey(model, processor, batch, span, shape))
        if exact is not None:
            return exact.mean_s
        known: dict[int, dict[float, float]] = {}
        for key, entry in self.entries.items():
            if key.model == model and key.processor == processor and key.span == span:
                known.setdefault(key.shape, {})[key.batch] = entry.mean_s
        if not known:
            return None
        at_batch = {work_ratio(of): _between(each, batch) for of, each in known.items()}
        return _between(at_batch, work_ratio(shape))

    def models(self) -> tuple[str, ...]:
        """Names of the models that have entries, in order of appearance."""
        return tuple(dict.fromkeys(key.model for key in self.entries))

    def processors(self) -> tuple[str, ...]:
        """Names of the processors that have entries, in order of appearance."""
        return tuple(dict.fromkeys(key.processor for key in self.entries))

    def units(self, model: str) -> int:
        """Number of unit subgraphs that the spans of a model add up to; 0 if it has no entry.

        >>> key = ProfileKey("a", "cpu0", 1, Span(0, 2))
        >>> Profile({key: Measurement(seconds=(1.0,))}).units("a")
        3
        """
        return max((key.span.last + 1 for key in self.entries if key.model == model), default=0)

    @property
    def at_smallest(self) -> Profile:
        """The entries of the smallest sizes: one each per model, processor, batch and span."""
        return self.where(lambda key: key.shape == 0)

    def merged(self, other: Profile) -> Profile:
        """Return both; on the same key `other` wins."""
        return Profile({**self.entries, **other.entries})

    def where(self, holds: Callable[[ProfileKey], bool]) -> Profile:
        """Return the entries of the keys for which something holds."""
        return Profile({key: entry for key, entry in self.entries.items() if holds(key)})

    def restricted(self, models: Iterable[str]) -> Profile:
        """Return the entries of these models only."""
        wanted = set(models)
        return self.where(lambda key: key.model in wanted)

    def of_pairs(self, pairs: Container[tuple[str, str]]) -> Profile:
        """Return the entries of these (model, processor) pairs only."""
        return self.where(lambda key: (key.model, key.processor) in pairs)

    def spans_by_processor(self, model: str) -> dict[str, tuple[Span, ...]]:
        """Return the spans of a model that have entries, by processor."""
        found: dict[str, dict[Span, None]] = {}
        for key in self.entries:
            if key.model == model:
                found.setdefault(key.processor, {})[key.span] = None
        return {name: tuple(sorted(spans)) for name, spans in found.items()}

    def __iter__(self) -> Iterator[tuple[ProfileKey, Measurement]]:
        """Iterate over (key, measurement)."""
        return iter(self.entries.items())

    def to_json(self) -> dict[str, Any]:
        """Return a value that `json.dumps` writes and `from_json` reads."""
        return {
            "format": _FORMAT,
            "entries": [{**key._asdict(), **asdict(entry)} for key, entry in self.entries.items()],
        }

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ConfigurationError: not a profile, or of another format version.
        """
        if not isinstance(data, dict) or data.get("format") != _FORMAT:
            raise ConfigurationError(f"not a profile of format {_FORMAT}; measure again")
        try:
            return cls({_key(row): _measurement(row) for row in data["entries"]})
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(f"damaged profile ({error!r}); measure again") from error

    def save(self, path: Path) -> None:
        """Write the profile; the file is replaced in one step."""
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps(self.to_json()))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a saved profile.

        Raises:
            ConfigurationError: the file is missing, not JSON or not a profile.
        """
        try:
            return cls.from_json(parse_json(read_bytes(path)))
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"cannot read profile {path}: {error}") from error


def _key(row: dict[str, Any]) -> ProfileKey:
    first, last = row["span"]
    if row["batch"] < 1 or not 0 <= first <= last:
        raise ValueError(f"batch {row['batch']}, span {first}..{last}")
    span, shape = Span(first, last), int(row.get("shape", 0))
    return ProfileKey(row["model"], row["processor"], int(row["batch"]), span, shape)


def _measurement(row: dict[str, Any]) -> Measurement:
    return Measurement(
        seconds=tuple(float(s) for s in row["seconds"]),
        load_s=float(row["load_s"]),
        resident_bytes=int(row["resident_bytes"]),
        run_bytes=int(row["run_bytes"]),
        error=None if row["error"] is None else float(row["error"]),
        estimated=bool(row.get("estimated", False)),
        interpolated=bool(row.get("interpolated", False)),
    )


def _between(known: Mapping[float, float], size: float) -> float:
    below = max((b for b in known if b <= size), default=None)
    above = min((b for b in known if b >= size), default=None)
    if below is None or above is None:
        nearest = above if below is None else below
        assert nearest is not None
        return known[nearest] * size / nearest
    if below == above:
        return known[below]
    share = (size - below) / (above - below)
    return known[below] + (known[above] - known[below]) * share
