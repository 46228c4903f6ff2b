"""Estimates: expected seconds of an execution, from the profile, corrected by what was observed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from coinfer.core.doubts import Doubts
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.machine.span import Span

__all__ = ["FAILURE", "LOOK", "MOST_BLAMED", "OUTLIER", "SMOOTHING", "Estimates", "learn"]

SMOOTHING = 0.1
"""Weight of a new observation (Band, MobiSys 2022, section 4.2)."""

OUTLIER = 2.0
"""An observation counts as at most this many times what was expected."""

FAILURE = 1 + SMOOTHING * (2.0 - 1)
"""A failure elsewhere repaired multiplies the estimate by this, 1.1: it is learnt as a run of twice
the expected time, the attempt and the retry. So a failure rate p below 1/2 lets the estimate settle
at (1 - p) / (1 - 2 p) times the service time, and runs that end well take it back by 10 % each."""

MOST_BLAMED = 10.0
"""Failures raise an estimate to at most this many times what was measured: a processor on which all
fails is not to look so slow that no run on it ever seems to hang."""

LOOK = 31
"""Executions from one look at what is not chosen to the next. A prime: streams that take turns are
all looked at."""

_NOTHING = Profile()

_Key: TypeAlias = tuple[str, Span, int, int]
"""Of a row: variant, span, batch and class of sizes."""


class Estimates:
    """Expected service times by variant: the measured mean first, then exponentially smoothed.

    Of a variant that batches, they are the measured curve over the batch times one learnt factor
    per span, processor and class of sizes: else what runs often would be compared as it is with
    what never runs as it was measured. Each batch of other variants is learnt by itself.

    What an estimate keeps from being run never corrects it. So estimates above what was measured
    are taken back to it in small steps (`coinfer.core.doubts`): of the processors that are not
    chosen now and then, of a variant that is not run at all whenever that is so (`doubt`).

    Attributes:
        until_look: Executions of which only the row need learn (`learn`) until the next look at
            what is not chosen; 0 while anything is doubted.
        is_doubted: Whether what an execution shows is of use beyond its own row.
    """

    __slots__ = (
        "_curves",
        "_doubts",
        "_factors",
        "_left",
        "_measured",
        "_profiles",
        "_rows",
        "_unrun",
        "is_doubted",
        "until_look",
    )

    def __init__(self) -> None:
        # By span: a lookup in a profile walks all of it, and there may be hundreds of spans.
        self._profiles: dict[str, dict[Span, Profile]] = {}
        self._rows: dict[tuple[str, Span, int, int], dict[str, float]] = {}
        # Of variants that batch, by span and class of sizes: the rows of all batches; the factors.
        self._curves: dict[str, dict[tuple[Span, int], list[dict[str, float]]]] = {}
        self._factors: dict[tuple[str, Span, int], dict[str, float]] = {}
        self._measured: dict[tuple[str, Span, int, int], Mapping[str, float]] = {}
        self._doubts = Doubts()
        self.until_look = LOOK - 1
        self.is_doubted = False
        self._left = LOOK - 1
        self._unrun: dict[str, float] = {}  # when it was doubted last, unless it ran since

    def add(self, variant: str, profile: Profile, *, as_curve: bool = False) -> None:
        """Take over a variant's profile.

        If it had one before, what was learnt since stays where the measured time is the same.
        """
        before = self._learnt(variant)
        profiles = self._profiles.get(variant, {})
        factors = {key[1:]: each for key, each in self._factors.items() if key[0] == variant}
        self.remove(variant)
        if as_curve:
            self._curves[variant] = {}
        entries: dict[Span, dict[ProfileKey, Measurement]] = {}
        for key, entry in profile:
            if key.model == variant:
                entries.setdefault(key.span, {})[key] = entry
        self._profiles[variant] = {span: Profile(each) for span, each in entries.items()}
        if as_curve:
            for (span, shape), found in factors.items():
                now, then = self._profiles[variant].get(span, _NOTHING), profiles[span]
                kept = {n: f for n, f in found.items() if _means(now, n) == _means(then, n)}
                self._factors[variant, span, shape] = kept
            return
        for place, (measured, learnt) in before.items():
            row = self.row(*place)
            row |= {n: s for n, s in learnt.items() if n in row and row[n] == measured.get(n)}

    def _learnt(self, variant: str) -> dict[_Key, tuple[Mapping[str, float], Mapping[str, float]]]:
        """Return the rows of a variant as they were measured and as they are now."""
        if variant in self._curves:
            return {}
        rows = self._rows.items()
        return {key: (self._measured[key], row) for key, row in rows if key[0] == variant}

    def remove(self, variant: str) -> None:
        """Forget a variant."""
        self._profiles.pop(variant, None)
        if self._curves.pop(variant, None) is not None:
            self._factors = {key: each for key, each in self._factors.items() if key[0] != variant}
        self._rows = {key: row for key, row in self._rows.items() if key[0] != variant}
        self._measured = {key: row for key, row in self._measured.items() if key[0] != variant}
        self._unrun.pop(variant, None)
        self._doubts.forget(variant)
        self._note_doubts(self._left if self.is_doubted else self.until_look)

    def rows(self, variant: str, batch: int, shape: int) -> dict[Span, dict[str, float]]:
        """Return the row of every span of a variant that some processor can run."""
        return {span: self.row(variant, span, batch, shape) for span in self._profiles[variant]}

    def runs_some_of(self, variant: str, processor: str) -> bool:
        """Tell whether a processor can run some span of a variant."""
        profiles = self._profiles.get(variant, {}).values()
        return any(processor in profile.processors() for profile in profiles)

    def row(self, variant: str, span: Span, batch: int, shape: int = 0) -> dict[str, float]:
        """Seconds by processor, without those that cannot run it.

        The same dictionary is returned until the variant is forgotten or loaded again, and what is
        observed is written into it: who keeps it stays informed.
        """
        key = (variant, span, batch, shape)
        row = self._rows.get(key)
        if row is None:
            profile = self._profiles[variant].get(span, _NOTHING)
            found = {
                # An empty batch is taken for one sample, until it is observed.
                name: profile.expected_s(variant, name, batch=batch or 1, span=span, shape=shape)
                for name in profile.processors()
            }
            row = self._rows[key] = {n: s for n, s in found.items() if s is not None}
            self._measured[key] = dict(row)
            if variant in self._curves and batch:
                factors = self._factors.get((variant, span, shape), {})
                for name, factor in factors.items():
                    row[name] *= factor
                self._curves[variant].setdefault((span, shape), []).append(row)
        return row

    def measured(self, variant: str, span: Span, batch: int, shape: int = 0) -> Mapping[str, float]:
        """Return the seconds by processor as they were measured, whatever was observed since."""
        self.row(variant, span, batch, shape)
        return self._measured[variant, span, batch, shape]

    def expected_s(
        self, variant: str, processor: str, span: Span, batch: int, shape: int = 0
    ) -> float | None:
        """Seconds that the execution should take, or None if the processor cannot run it."""
        return self.row(variant, span, batch, shape).get(processor)

    def slowed(self, variant: str, processor: str, span: Span, batch: int, shape: int = 0) -> float:
        """Return how many times what was measured an execution is expected to take."""
        learnt_s = self.row(variant, span, batch, shape)[processor]
        measured_s = self._measured[variant, span, batch, shape][processor]
        return learnt_s / measured_s if measured_s > 0 else 1.0

    def observe(
        self,
        variant: str,
        processor: str,
        span: Span,
        batch: int,
        service_s: float,
        shape: int = 0,
    ) -> Iterable[tuple[Span, str]]:
        """Learn from an execution that ended well, unless the variant was replaced meanwhile.

        Returns:
            The spans and processors whose estimates changed besides.
        """
        row = self._rows.get((variant, span, batch, shape))
        if row is None:
            return ()
        before_s = row.get(processor, 0.0)
        learn(row, processor, service_s)
        if variant in self._curves and batch and before_s > 0:
            self._follow(variant, span, shape, row, processor, row[processor] / before_s)
        left = self._left if self.is_doubted else self.until_look
        if self.is_doubted:
            self._unrun.pop(variant, None)
            self._doubts.judge(variant, processor, is_confirmed=service_s >= before_s)
        self._note_doubts(left - 1 if left else LOOK - 1)
        return () if left else self._relax(variant, span, batch, shape, processor)

    def _note_doubts(self, left: int) -> None:
        """Let `learn` alone be enough for so many executions, unless anything is doubted."""
        self._left = left
        self.is_doubted = bool(self._unrun or self._doubts.steps)
        self.until_look = 0 if self.is_doubted else left

    def doubt(self, variant: str, batch: int, shape: int, now: float) -> list[tuple[Span, str]]:
        """Take the estimates of a variant back that is not run because of them.

        Nothing is done unless that was asked for since the last run, at another moment: what runs
        corrects itself, and what came at once counts once.

        Args:
            variant: The variant.
            batch: Its samples.
            shape: The class of its sizes.
            now: The moment.

        Returns:
            The spans and processors whose estimates changed.
        """
        left = self._left if self.is_doubted else self.until_look
        last = self._unrun.get(variant)
        self._unrun[variant] = now
        self._note_doubts(left)
        if last is None or last == now:
            return []
        return [
            changed
            for span in self._profiles.get(variant, {})
            for changed in self._relax(variant, span, batch, shape)
        ]

    def _relax(
        self, variant: str, span: Span, batch: int, shape: int, chosen: str = ""
    ) -> list[tuple[Span, str]]:
        """Take estimates that are above what was measured a step back, but for the one chosen."""
        key, changed = (variant, span, batch, shape), []
        row = self._rows.get(key, {})
        for name, known_s in self._measured.get(key, {}).items():
            old = row[name]
            if old <= known_s or name == chosen:
                continue
            row[name] = self._doubts.taken_back(variant, name, old, known_s)
            if variant in self._curves and batch:
                self._follow(variant, span, shape, row, name, row[name] / old)
            changed.append((span, name))
        self._note_doubts(self._left)
        return changed

    def _follow(
        self,
        variant: str,
        span: Span,
        shape: int,
        row: dict[str, float],
        processor: str,
        factor: float,
    ) -> None:
        """Let all other batches of a variant follow what was observed of one."""
        for other in self._curves[variant][span, shape]:
            if other is not row:
                other[processor] *= factor
        factors = self._factors.setdefault((variant, span, shape), {})
        factors[processor] = factors.get(processor, 1.0) * factor

    def blame(self, variant: str, processor: str, span: Span, batch: int, shape: int = 0) -> None:
        """Expect more of an execution that failed while its request ended well elsewhere."""
        row = self._rows.get((variant, span, batch, shape))
        old = None if row is None else row.get(processor)
        if row is None or old is None:
            return
        profile = self._profiles[variant].get(span, _NOTHING)
        known_s = profile.expected_s(variant, processor, batch=batch, span=span, shape=shape)
        measured = known_s or old
        row[processor] = max(old, min(FAILURE * old, MOST_BLAMED * measured))
        self._doubts.judge(variant, processor, is_confirmed=True)
        if variant in self._curves and batch and old > 0:
            self._follow(variant, span, shape, row, processor, row[processor] / old)


def _means(profile: Profile, processor: str) -> dict[ProfileKey, float]:
    """Return what was measured on a processor."""
    return {key: entry.mean_s for key, entry in profile if key.processor == processor}


def learn(row: dict[str, float], processor: str, service_s: float) -> None:
    """Correct a row of seconds by processor by what an execution took."""
    old = row.get(processor)
    if old is None:
        return
    # One stall must not make a processor look slow for ever: nobody would choose it, and so
    # nothing would correct it. A lasting slowdown still gets through, by 10 % a run.
    if service_s > OUTLIER * old > 0:
        service_s = OUTLIER * old
    row[processor] = old + SMOOTHING * (service_s - old)
