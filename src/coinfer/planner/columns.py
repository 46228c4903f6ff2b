"""Columns: of many processors those few that models are loaded on, and why.

On a machine of many cores each model could be loaded on hundreds of processors, and every session
takes memory, threads and time to load. What is kept of those that are worth it (`useful`): the
columns that the bound uses at the models' rates, of those that meet their deadlines; the widths
that serve best at the load that these rates make (`policies.crowding`), or, where only the mix is
known, at loads from a lone request to the bound; one more of each in case one fails or is busy; and
more of what is kept while there is room. Processors that are alike differ in nothing but their
cores, so it is decided how many of them there are to be; which ones, spreads the models over the
machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from coinfer.bound import throughput_bound
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile
from coinfer.policies.crowding import crowded
from coinfer.policies.dispersion import Dispersion

__all__ = ["Columns", "Demand", "Room", "few", "has_widths"]

_SPARE = 1.5
"""So many times the processors that the bound uses: requests do not come evenly."""

_LOADS = (0.8, 0.5, 0.25)
"""Shares of the bound at which requests may come, beside the bound itself and a lone one."""

_AROUND = (1.0, 1.3, 0.7, 1.15, 0.85)
"""The same where the rates are known, as multiples of the share of the bound that they make.

The last two are for widths between: where one core serves best at the load itself, by little, and
four at 0.7 times that, two do when a little less comes.
"""

_MOST_LOAD_S = 15.0
"""Seconds that loading all sessions may take; beyond it fewer of them have to do."""

_MOST_SPARE = 8.0
"""Where the load is known and there is room, so many times the processors that it keeps busy: a
request that finds those of its model taken may find others idle that its model is not loaded on."""

_ALL_TAKEN = 0.02
"""How often a request may find all those taken that its model is loaded on, if there is room."""

_FILLED = 1 / 3
"""Of the seconds to load, what may be taken by more sessions than are needed."""

_Pairs: TypeAlias = Container[tuple[str, str]]
_Kind: TypeAlias = tuple[object, ...]
_Row: TypeAlias = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What will be asked for, as far as it is known.

    Attributes:
        rates: Requests per second or shares of the requests, by model; 1 of those not named.
        is_absolute: Whether they are requests per second.
        deadlines: Relative deadlines by model, in seconds.
        arrivals: Tells when the first requests come, in seconds and in order, and their models.
    """

    rates: Mapping[str, float] = field(default_factory=dict)
    is_absolute: bool = False
    deadlines: Mapping[str, float] = field(default_factory=dict)
    arrivals: Callable[[], Iterable[tuple[float, str]]] = tuple


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


class Room(NamedTuple):
    """What all sessions together may take.

    Attributes:
        threads: Of their pools.
        memory: Bytes.
        load_s: Seconds to load them.
    """

    threads: float = math.inf
    memory: float = math.inf
    load_s: float = _MOST_LOAD_S

    def exceeded(self, taken: Sequence[float]) -> list[int]:
        """Return the positions of what is too little."""
        return [at for at, (need, room) in enumerate(zip(taken, self, strict=True)) if need > room]


@dataclass(slots=True, eq=False)
class _Wanted:
    """Of one kind, how many are wanted for one model, and why.

    Attributes:
        members: All of the kind.
        busy: How many of them the model keeps busy, on average.
        taken: How often one of them is busy if all runs of all models are that wide.
        why: In words.
        must: Whether it stays whatever it takes.
        usual: Whether it serves best at the load that is expected.
        spare: Whether it only serves what finds all wider ones taken; it gets what room is left.
        memory: Bytes of a session.
        load_s: Seconds to load one.
        sessions: By number of members, how many sessions that makes.
        count: How many are wanted.
    """

    members: list[Processor]
    busy: float
    taken: float
    why: str
    must: bool
    usual: bool
    memory: float
    load_s: float
    sessions: Sequence[int]
    spare: bool = False
    count: int = 0

    def __post_init__(self) -> None:
        """Want some more than are busy, and one more in case of a failure."""
        if not self.spare:
            self.count = min(len(self.members), math.ceil(_SPARE * self.busy) + 1)

    @property
    def threads(self) -> int:
        """Threads of each."""
        return self.members[0].threads

    @property
    def all_taken(self) -> float:
        """How often a request finds all of them busy."""
        return self.taken**self.count

    @property
    def most(self) -> int:
        """How many are of any use: a model of little work still finds most of them taken."""
        to_be_free = math.log(_ALL_TAKEN) / math.log(self.taken)
        return min(len(self.members), math.ceil(max(_MOST_SPARE * self.busy + 2, to_be_free)))

    @property
    def takes(self) -> tuple[float, float, float]:
        """What they take of `Room`."""
        sessions = self.sessions[self.count]
        pools = self.threads * sessions if self.threads > 1 else 0
        return pools, self.memory * sessions, self.load_s * sessions


def has_widths(processors: Sequence[Processor]) -> bool:
    """Tell whether there are widths between one core and all: else little is to be left out."""
    return len({p.threads for p in processors if p.device == "CPU" and not p.overlays}) > 2


def few(
    profile: Profile,
    processors: Sequence[Processor],
    demand: Demand,
    *,
    room: Room,
    keep: _Pairs = frozenset(),
    session_of: Callable[[Processor], Hashable] = lambda processor: processor.name,
) -> dict[str, Columns]:
    """Choose the processors of each model.

    Args:
        profile: The times that are worth it.
        processors: Those in use, in the order of preference.
        demand: What will be asked for.
        room: What all sessions together may take.
        keep: (model, processor) pairs that stay in any case.
        session_of: Processors with equal values share a session: a further one costs nothing.
    """
    tables = {
        model: {k.processor: entry for k, entry in profile.at_smallest.restricted([model])}
        for model in profile.models()
    }
    rows = {m: {n: entry.mean_s for n, entry in table.items()} for m, table in tables.items()}
    used, loads = _used_by_bound(rows, processors, demand)
    coming = Dispersion.of(demand.arrivals(), _least_work_s(rows, processors))
    wanted = {
        m: _wanted(table, processors, used[m], loads, coming, session_of)
        for m, table in tables.items()
    }
    _fit(wanted, room)
    if loads is not _LOADS:
        _fill(wanted, room, spare=False)
        _fill(wanted, room, spare=True)
        wanted = {m: [each for each in row if each.count] for m, row in wanted.items()}
    load: dict[tuple[int, str], int] = {}  # by width, 0 for all of them, and unit
    found = {}
    for model, row in rows.items():
        own: set[str] = set()
        chosen = {name for each in wanted[model] for name in _spread(each, load, own)}
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


def _kinds(row: Container[str], processors: Sequence[Processor]) -> dict[_Kind, list[Processor]]:
    """Group the CPU processors that run a model by what they are, the narrowest first."""
    found: dict[_Kind, list[Processor]] = {}
    for p in processors:
        if p.name in row and p.device == "CPU":
            found.setdefault(p.likeness, []).append(p)
    return dict(sorted(found.items(), key=lambda pair: pair[1][0].threads))


def _used_by_bound(
    rows: Mapping[str, _Row], processors: Sequence[Processor], demand: Demand
) -> tuple[dict[str, dict[str, float]], Sequence[float]]:
    """Return by model the share of its time that the bound gives it of each processor.

    And the shares of the bound at which requests may come.
    """
    in_time = {}
    for model, row in rows.items():
        deadline_s = demand.deadlines.get(model, math.inf)
        fast = {name: seconds for name, seconds in row.items() if seconds <= deadline_s}
        in_time[model] = fast or row
    mix = {model: demand.rates.get(model, 1.0) for model in rows}
    least = min((amount for amount in mix.values() if amount > 0), default=1.0)
    mix = {model: amount if amount > 0 else least for model, amount in mix.items()}
    bound = throughput_bound(in_time, [p for p in processors if not p.overlays], mix)
    loads: Sequence[float] = _LOADS
    if demand.is_absolute and set(rows) <= set(demand.rates):
        load = sum(mix.values()) / bound.throughput_per_s
        loads = [min(around * load, 1.0) for around in _AROUND]
    shares = {
        model: {name: row[model] for name, row in bound.shares.items() if model in row}
        for model in rows
    }
    return shares, loads


def _least_work_s(rows: Mapping[str, _Row], processors: Sequence[Processor]) -> dict[str, float]:
    """Return by model the fewest core-seconds that a request takes."""
    cores = {p.name: len(p.units) for p in processors}
    return {
        m: min(seconds * cores[name] for name, seconds in row.items()) for m, row in rows.items()
    }


def _wanted(
    table: Mapping[str, Measurement],
    processors: Sequence[Processor],
    used: _Row,
    loads: Sequence[float],
    coming: Dispersion,
    session_of: Callable[[Processor], Hashable],
) -> list[_Wanted]:
    """Say which kinds a model wants, and how many of each.

    Args:
        table: The model's measurements by processor.
        processors: Those in use.
        used: The share of its time that the bound gives it of each processor.
        loads: Shares of the bound at which requests may come; a lone one too if they are `_LOADS`.
        coming: How unevenly they come.
        session_of: As of `few`.
    """
    kinds = _kinds(table, processors)
    if not kinds:
        return []
    least_s = {k: min(table[p.name].mean_s for p in of) for k, of in kinds.items()}
    cheapest_s = min(least_s[kind] * of[0].threads for kind, of in kinds.items())
    found: dict[_Kind, _Wanted] = {}

    usual, _ = _fastest_at(loads[0], coming, kinds, least_s)

    def taken(kind: _Kind) -> float:
        growth = table[kinds[kind][0].name].mean_s * kinds[kind][0].threads / cheapest_s
        return min(max(loads[0] * growth, 0.01), 0.99)

    def want(
        kind: _Kind, busy: float, why: str, *, must: bool = False, spare: bool = False
    ) -> None:
        members = kinds[kind]
        entry = table[members[0].name]
        sessions = [len({session_of(p) for p in members[:n]}) for n in range(len(members) + 1)]
        each = _Wanted(
            members,
            busy,
            taken(kind),
            why,
            must,
            kind == usual,
            entry.resident_bytes,
            entry.load_s,
            sessions,
            spare,
        )
        if kind not in found or found[kind].count < each.count:
            found[kind] = each

    for kind, members in kinds.items():
        share = sum(used.get(p.name, 0.0) for p in members)
        if share > 0:
            why = f"the bound keeps {share:.1f} of {len(members)} busy with it"
            want(kind, share, why, must=True)
    cores = sum(used.get(p.name, 0.0) * p.threads for of in kinds.values() for p in of)
    for load in loads:
        best, growth = _fastest_at(load, coming, kinds, least_s)
        if best not in found:
            busy = load * cores * growth / kinds[best][0].threads
            want(best, busy, f"the fastest at {load:.0%} of the bound, {busy:.1f} of them busy")
    if loads is not _LOADS:
        for kind, missed in _narrower(kinds, usual, taken):
            if kind not in found:
                why = f"wider ones are all taken {missed:.0%} of the time"
                want(kind, 0.0, why, spare=True)
    fastest = min(least_s, key=least_s.__getitem__)
    lone = f"a lone request takes {least_s[fastest] * 1e3:.3g} ms, the least"
    if fastest in found:
        found[fastest].why += f"; {lone}"
    elif loads is _LOADS or not found:
        want(fastest, 0.0, lone)
    if len({p.units for each in found.values() for p in each.members[: each.count]}) < 2:
        other = next((k for k in kinds if k not in found), None)
        if other is not None:
            want(other, 0.0, "if another one fails")
    return sorted(found.values(), key=lambda each: each.threads)


def _narrower(
    kinds: dict[_Kind, list[Processor]], usual: _Kind, taken: Callable[[_Kind], float]
) -> Iterator[tuple[_Kind, float]]:
    """Yield the usual kind and narrower ones, as long as all of those before are often taken.

    With each comes the share of the time for which those before it are.
    """
    missed, width = 1.0, kinds[usual][0].threads
    for kind in reversed(kinds):  # from wide to narrow
        if kinds[kind][0].threads > width:
            continue
        yield kind, missed
        missed = taken(kind) ** len(kinds[kind])
        if missed <= _ALL_TAKEN:
            return


def _fastest_at(
    load: float,
    coming: Dispersion,
    kinds: Mapping[_Kind, list[Processor]],
    least_s: Mapping[_Kind, float],
) -> tuple[_Kind, float]:
    """Return the kind that serves best at a share of the bound, and what it adds to the work."""
    threads = {kind: members[0].threads for kind, members in kinds.items()}
    cheapest_s = min(least_s[kind] * threads[kind] for kind in kinds)
    growth = {kind: least_s[kind] * threads[kind] / cheapest_s for kind in kinds}
    units = len({unit for members in kinds.values() for p in members for unit in p.units})
    busy = {kind: load * growth[kind] for kind in kinds}
    response_s = {
        kind: least_s[kind] * crowded(busy[kind], units / threads[kind], coming.at(busy[kind]))
        for kind in kinds
    }
    best = min(response_s, key=response_s.__getitem__)
    return best, growth[best]


def _fit(wanted: Mapping[str, list[_Wanted]], room: Room) -> None:
    """Take away what is spared most, then kinds that are least busy, until all fits."""
    while True:
        everyone = [each for row in wanted.values() for each in row]
        taken = [sum(each) for each in zip(*(each.takes for each in everyone), strict=True)]
        exceeded = room.exceeded(taken) if everyone else []
        if not exceeded:
            return
        # Fewer of what takes nothing of it, as 1-thread processors of pools, would not help.
        takers = [e for e in everyone if any(e.takes[at] > 0 for at in exceeded)]
        spare = [e for e in takers if e.count > 1 and e.sessions[e.count] > 1]
        if spare:
            most = max(spare, key=lambda e: (e.count / (e.busy + 0.5), e.threads))
            most.count -= 1
            continue
        options = [e for e in takers if not e.must and e.sessions[e.count] > 0]
        if not options:
            return  # nothing more can go: the pass on threads says what that means
        least = max(options, key=lambda e: e.threads)
        for row in wanted.values():
            if least in row:
                row.remove(least)


def _fill(wanted: Mapping[str, list[_Wanted]], room: Room, *, spare: bool) -> None:
    """Add more of what is wanted while there is room, or of what is spare.

    First of the kinds that serve best at the load that is expected, and of these where a request
    most often finds all of them taken, by the threads that one more has: it then takes what serves
    worse. Models of little work count like others: it is the runs of all models that take cores.
    """
    room = room._replace(load_s=room.load_s * _FILLED)
    everyone = [each for row in wanted.values() for each in row]
    growing = [each for each in everyone if each.spare is spare]
    while growing:
        least = min(growing, key=lambda e: (not e.usual, -e.all_taken / e.threads, e.threads))
        if least.count >= least.most:
            growing.remove(least)
            continue
        least.count += 1
        if room.exceeded([sum(each) for each in zip(*(e.takes for e in everyone), strict=True)]):
            least.count -= 1
            growing.remove(least)


def _spread(wanted: _Wanted, load: dict[tuple[int, str], int], own: set[str]) -> list[str]:
    """Take those whose cores the fewest sessions of the same width, then of any, are for so far.

    Of equal ones those that share cores with what the model has of other widths: its wide runs are
    then on a part of the machine, and others find cores free.

    Args:
        wanted: How many of which.
        load: By width, 0 for all of them, and unit, how many sessions there are.
        own: The units of the model's sessions over several cores; those taken are added.
    """
    taken: list[str] = []
    width = wanted.members[0].threads
    before = frozenset(own)
    for _ in range(wanted.count):
        left = [p for p in wanted.members if p.name not in taken]
        best = min(
            left,
            key=lambda p: (
                sum(load.get((width, unit), 0) for unit in p.units),
                -len(p.units & before),
                sum(load.get((0, unit), 0) for unit in p.units),
            ),
        )
        if width > 1:
            own |= best.units
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
