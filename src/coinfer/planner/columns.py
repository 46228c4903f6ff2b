"""Columns: of many processors those few that models are loaded on, and why.

On a machine of many cores each model could be loaded on hundreds of processors, and every session
takes memory, threads and time to load. What is kept of those that are worth it (`useful`): the
columns that the bound uses at the models' rates, of those that meet their deadlines; where a lone
request is answered fastest; a width between the two; and one more of each in case one fails or is
busy. Processors that are alike differ in nothing but their cores, so it is decided how many of them
there are to be; which ones, spreads the models over the machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple, TypeAlias

from coinfer.bound import throughput_bound
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile

__all__ = ["Columns", "Demand", "few", "has_widths"]

_SPARE = 1.5
"""So many times the processors that the bound uses: requests do not come evenly."""

_FAR = 4
"""Widths that differ by more than this get one between them: for loads between."""

_Pairs: TypeAlias = Container[tuple[str, str]]
_Kind: TypeAlias = tuple[object, ...]
_Row: TypeAlias = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What will be asked for, as far as it is known.

    Attributes:
        rates: Requests per second or shares of the requests, by model; 1 of those not named.
        deadlines: Relative deadlines by model, in seconds.
    """

    rates: Mapping[str, float] = field(default_factory=dict)
    deadlines: Mapping[str, float] = field(default_factory=dict)


class Columns(NamedTuple):
    """What one model is loaded on.

    Attributes:
        processors: Names, in the order of preference.
        why: For each kind of processors that is kept, in words.
        left: Names of kinds that are not, with the reason.
    """

    processors: tuple[str, ...]
    why: tuple[str, ...]
    left: tuple[tuple[str, str], ...]


@dataclass(slots=True)
class _Wanted:
    """Of one kind, how many are wanted for one model, and why."""

    kind: _Kind
    members: list[Processor]
    count: int
    why: str

    @property
    def threads(self) -> int:
        """Pool threads of all of them."""
        threads = self.members[0].threads
        return threads * self.count if threads > 1 else 0


def has_widths(processors: Sequence[Processor]) -> bool:
    """Tell whether there are widths between one core and all: else little is to be left out."""
    return len({p.threads for p in processors if p.device == "CPU" and not p.overlays}) > 2


def few(
    profile: Profile,
    processors: Sequence[Processor],
    demand: Demand,
    *,
    room: int,
    keep: _Pairs = frozenset(),
    session_of: Callable[[Processor], Hashable] = lambda processor: processor.name,
) -> dict[str, Columns]:
    """Choose the processors of each model.

    Args:
        profile: The times that are worth it.
        processors: Those in use, in the order of preference.
        demand: What will be asked for.
        room: Threads that the pools of all sessions together may hold.
        keep: (model, processor) pairs that stay in any case.
        session_of: Processors with equal values share a session: a further one costs nothing.
    """
    rows = {
        model: {
            key.processor: entry.mean_s for key, entry in profile.at_smallest.restricted([model])
        }
        for model in profile.models()
    }
    used = _used_by_bound(rows, processors, demand)
    wanted = {model: _wanted(row, processors, used[model]) for model, row in rows.items()}
    _fit(wanted, room)
    load: dict[tuple[int, str], int] = {}  # by width, 0 for all of them, and unit
    found = {}
    for model, row in rows.items():
        chosen: set[str] = set()
        for each in wanted[model]:
            chosen.update(_spread(each, load))
        able = [p for p in processors if p.name in row]
        sessions = {(p.backend, session_of(p)) for p in able if p.name in chosen}
        stays = [
            p.name
            for p in able
            if p.name in chosen
            or (p.backend, session_of(p)) in sessions
            or p.device != "CPU"
            or (model, p.name) in keep
        ]
        why = tuple(f"{_named(each.members)}: {each.why}" for each in wanted[model])
        found[model] = Columns(tuple(stays), why, _left(row, able, stays))
    return found


def _kinds(row: _Row, processors: Sequence[Processor]) -> dict[_Kind, list[Processor]]:
    """Group the CPU processors that run a model by what they are, the narrowest first."""
    found: dict[_Kind, list[Processor]] = {}
    for p in processors:
        if p.name in row and p.device == "CPU":
            found.setdefault(p.likeness, []).append(p)
    return dict(sorted(found.items(), key=lambda pair: pair[1][0].threads))


def _used_by_bound(
    rows: Mapping[str, _Row], processors: Sequence[Processor], demand: Demand
) -> dict[str, dict[str, float]]:
    """Return by model the share of its time that the bound gives it of each processor."""
    in_time = {}
    for model, row in rows.items():
        deadline_s = demand.deadlines.get(model, math.inf)
        fast = {name: seconds for name, seconds in row.items() if seconds <= deadline_s}
        in_time[model] = fast or row
    mix = {model: demand.rates.get(model, 1.0) for model in rows}
    mix = {
        model: amount if amount > 0 else min(mix.values()) or 1.0 for model, amount in mix.items()
    }
    bound = throughput_bound(in_time, [p for p in processors if not p.overlays], mix)
    return {
        model: {name: row[model] for name, row in bound.shares.items() if model in row}
        for model in rows
    }


def _wanted(row: _Row, processors: Sequence[Processor], used: _Row) -> list[_Wanted]:
    """Say which kinds a model wants, and how many of each."""
    kinds = _kinds(row, processors)
    found: dict[_Kind, _Wanted] = {}
    for kind, members in kinds.items():
        share = sum(used.get(p.name, 0.0) for p in members)
        if share > 0:
            count = min(len(members), math.ceil(_SPARE * share) + 1)
            why = f"the bound keeps {share:.1f} of {len(members)} busy with it"
            found[kind] = _Wanted(kind, members, count, why)
    if not kinds:
        return []
    least_s = {kind: min(row[p.name] for p in members) for kind, members in kinds.items()}
    fastest = min(least_s, key=least_s.__getitem__)
    if fastest not in found:
        members = kinds[fastest]
        why = f"a lone request takes {least_s[fastest] * 1e3:.3g} ms there, the least"
        found[fastest] = _Wanted(fastest, members, min(2, len(members)), why)
    for kind in _between(found, kinds, least_s):
        members = kinds[kind]
        found[kind] = _Wanted(kind, members, min(2, len(members)), "for loads between")
    if len({p.units for each in found.values() for p in each.members[: each.count]}) < 2:
        _add_spare(found, kinds)
    return sorted(found.values(), key=lambda each: each.members[0].threads)


def _between(
    found: Mapping[_Kind, _Wanted],
    kinds: Mapping[_Kind, list[Processor]],
    least_s: Mapping[_Kind, float],
) -> list[_Kind]:
    """Return a kind halfway between each two kept widths that are far apart."""
    widths = sorted({each.members[0].threads for each in found.values()})
    chosen = []
    for narrow, wide in pairwise(widths):
        inside = [k for k, members in kinds.items() if narrow < members[0].threads < wide]
        if wide > _FAR * narrow and inside:
            middle = math.sqrt(narrow * wide)
            chosen.append(
                min(
                    inside,
                    key=lambda k: (abs(math.log(kinds[k][0].threads / middle)), least_s[k]),
                )
            )
    return chosen


def _add_spare(found: dict[_Kind, _Wanted], kinds: Mapping[_Kind, list[Processor]]) -> None:
    """Where all is on the same units, add what is on others, or on fewer of them."""
    taken = {p.units for each in found.values() for p in each.members[: each.count]}
    for kind, members in kinds.items():
        if any(p.units not in taken for p in members) and kind not in found:
            found[kind] = _Wanted(kind, members, min(2, len(members)), "if another one fails")
            return


def _fit(wanted: Mapping[str, list[_Wanted]], room: int) -> None:
    """Take second ones away, then kinds, the widest first, until the pools fit."""

    def total() -> int:
        return sum(each.threads for row in wanted.values() for each in row)

    while total() > room:
        wide = [each for row in wanted.values() for each in row if each.threads]
        spare = [each for each in wide if each.count > 1]
        if spare:
            max(spare, key=lambda each: each.members[0].threads).count -= 1
            continue
        # One session each is left: the model with the most threads gives up its widest kind.
        model = max(wanted, key=lambda name: sum(each.threads for each in wanted[name]))
        if len(wanted[model]) < 2:
            return  # nothing narrower is kept: the pass on threads says what that means
        wanted[model].pop()


def _spread(wanted: _Wanted, load: dict[tuple[int, str], int]) -> list[str]:
    """Take those whose cores the fewest sessions of the same width, then of any, are for so far."""
    taken: list[str] = []
    width = wanted.members[0].threads
    for _ in range(wanted.count):
        left = [p for p in wanted.members if p.name not in taken]
        best = min(
            left,
            key=lambda p: [sum(load.get((w, unit), 0) for unit in p.units) for w in (width, 0)],
        )
        for key in ((w, unit) for unit in best.units for w in (width, 0)):
            load[key] = load.get(key, 0) + 1
        taken.append(best.name)
    return taken


def _left(
    row: _Row, able: Sequence[Processor], stays: Sequence[str]
) -> tuple[tuple[str, str], ...]:
    kept, found = set(stays), []
    for members in _kinds(row, able).values():
        gone = [p for p in members if p.name not in kept]
        if len(gone) == len(members):
            found.append((_named(members), "neither the bound nor a lone request needs them"))
        elif gone:
            found.append((_named(gone), f"{len(members) - len(gone)} like these are enough"))
    return tuple(found)


def _named(members: Sequence[Processor]) -> str:
    first, last = members[0].name, members[-1].name
    return first if first == last else f"{first} ... {last} ({len(members)})"
