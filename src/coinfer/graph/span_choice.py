"""Span choice: which spans on which processors are worth compiling. Pure; measures nothing.

A span is worth it if the plan that finishes a request first contains it, at some boundary that
requests reach, in some plausible state of the machine: everything idle, one processor busy, only
one processor free, one processor lost. The plan is Band's dynamic program (MobiSys 2022, section
4.2) with the cost of one more execution added, so a cut that costs more than it brings is never
chosen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from coinfer.core.routes import FORK_S, HANDOVER_S
from coinfer.graph.span_times import Table
from coinfer.machine.processor import Processor
from coinfer.machine.span import Fork, Span

__all__ = ["LEAST_GAIN", "NEW_SPAN", "Forks", "forks_on", "machine_states", "plan", "worthwhile"]

LEAST_GAIN = 0.03
"""A cut must bring this share of the time that a request takes on the idle machine: what it costs
otherwise, in memory and in work for the whole machine, is not in the plan of one request."""

LEAST_GAIN_OF_A_STEP = 0.002
"""What each execution must bring, as such a share, in a plan with forks. It brings `LEAST_GAIN` as
a whole: a network may have ten forks, each with three executions, that gain a little each."""

NEW_SPAN = 0.5
"""What a span costs more, as a share of its time, that the idle machine does not want: it takes
memory for a state that is seldom. So in such a state a request goes on over spans that are there
already, if they are not much slower."""

_Step = tuple[Span, str]

Forks = Mapping[Span, Sequence[tuple[Span, Sequence[tuple[str, str]]]]]
"""By left span: the right spans that may run beside it, and on which two processors."""

_NO_FORKS: Forks = {}
_NOTHING: Mapping[str, float] = {}


def plan(
    table: Table,
    units: int,
    start: int = 0,
    waits: Mapping[str, float] | None = None,
    *,
    step_s: float = HANDOVER_S,
    forks: Forks = _NO_FORKS,
) -> tuple[list[_Step], float]:
    """Find the chain of spans that gets a request from a boundary to the end first.

    Args:
        table: Seconds by span and processor; spans in ascending order.
        units: Number of units; the end is behind the last one.
        start: The boundary at which the request stands.
        waits: Seconds until a processor is free; infinite: it is not used. None: all are idle.
        step_s: Seconds that each execution costs beside its own time.
        forks: Pairs of spans that may run at the same time.

    Returns:
        The chain and the seconds it takes; an empty chain and infinity if there is none. Both
        spans of a fork are in the chain, one after the other.

    >>> table = {Span(0, 0): {"gpu": 0.001}, Span(0, 1): {"cpu": 0.010}, Span(1, 1): {"cpu": 0.004}}
    >>> plan(table, 2)[0]
    [(Span(first=0, last=0), 'gpu'), (Span(first=1, last=1), 'cpu')]
    """
    waits = waits or {}
    reached = [math.inf] * (units + 1)
    reached[start] = 0.0
    came: dict[int, tuple[_Step, ...]] = {}
    for span, row in table.items():
        since = reached[span.first] + step_s
        if since == math.inf:
            continue
        after = span.last + 1
        for name, seconds in row.items():
            wait = waits.get(name, 0.0) + step_s
            finish = (since if since > wait else wait) + seconds
            if finish < reached[after]:
                reached[after], came[after] = finish, ((span, name),)
        for right, pairs in forks.get(span, ()):
            for one, other in pairs:
                if one in row and other in (beside := table.get(right, _NOTHING)):
                    wait = max(since, waits.get(one, 0.0) + step_s, waits.get(other, 0.0) + step_s)
                    finish = wait + max(row[one], beside[other]) + step_s + FORK_S
                    if finish < reached[right.last + 1]:
                        reached[right.last + 1] = finish
                        came[right.last + 1] = ((span, one), (right, other))
    if reached[units] == math.inf:
        return [], math.inf
    chain: list[_Step] = []
    at = units
    while at > start:
        chain += reversed(came[at])
        at = came[at][0][0].first
    return chain[::-1], reached[units]


def forks_on(forks: Iterable[Fork], processors: Sequence[Processor]) -> Forks:
    """Return forks by their left span, with the pairs of processors that may run together.

    >>> both = [Processor(name=n, backend="null", units=frozenset({n})) for n in ("p", "q")]
    >>> forks_on([Fork(0, 1, 1)], both)[Span(0, 0)]
    [(Span(first=1, last=1), [('p', 'q'), ('q', 'p')])]
    """
    pairs = [(p.name, q.name) for p in processors for q in processors if not p.excludes(q)]
    found: dict[Span, list[tuple[Span, list[tuple[str, str]]]]] = {}
    for fork in forks if pairs else ():
        found.setdefault(fork.left, []).append((fork.right, pairs))
    return found


def worthwhile(
    table: Table,
    units: int,
    processors: Sequence[Processor],
    *,
    forks: Iterable[Fork] = (),
    most_states: int | None = None,
) -> set[_Step]:
    """Return the (span, processor) pairs that some plan wants; empty if none reaches the end.

    What is wanted without forks is wanted with them as well: a machine that has enough to do for
    all of its processors must not go through the spans of forks in line.

    Args:
        table: Seconds by span and processor, measured or expected; spans in ascending order.
        units: Number of units.
        processors: Those in use; processors that share a compute unit are busy together.
        forks: Pairs of spans that may run at the same time.
        most_states: Look at so many states of the machine only, the idle one first.
    """
    able = forks_on(forks, processors)
    _, idle_s = plan(table, units)
    if idle_s == math.inf:
        return set()
    step_s = HANDOVER_S + LEAST_GAIN * idle_s
    fork_step_s = HANDOVER_S + LEAST_GAIN_OF_A_STEP * idle_s
    states = machine_states(processors, idle_s)[:most_states]
    dearer = {span: {n: s * (1 + NEW_SPAN) for n, s in row.items()} for span, row in table.items()}
    chosen: set[_Step] = set()
    if able:
        chosen = worthwhile(table, units, processors, most_states=most_states)
        for span, name in chosen:
            dearer[span][name] = table[span][name]
    planned: set[tuple[int, int]] = set()
    boundaries = {0}
    while True:
        # From the start first, then from the end back: what is chosen late is there to go on with.
        ahead = sorted((at, p > 0, -p) for at in range(len(states)) for p in boundaries)
        todo = [(at, -p) for at, _, p in ahead if (at, -p) not in planned]
        if not todo:
            return chosen
        for at, start in todo:
            planned.add((at, start))
            costs = dearer if at else table
            chain, end_s = plan(costs, units, start, states[at], step_s=step_s)
            if able:
                forked, forked_s = plan(
                    costs, units, start, states[at], step_s=fork_step_s, forks=able
                )
                chain = forked if forked_s <= (1 - LEAST_GAIN) * end_s else chain
            chosen.update(chain)
            for span, name in chain:
                dearer[span][name] = table[span][name]
                boundaries.add(span.last + 1)
            boundaries.discard(units)
            if not at:
                break  # the idle machine everywhere first


def machine_states(processors: Sequence[Processor], busy_s: float) -> list[Mapping[str, float]]:
    """Return plausible states of the machine, as waits by processor, the most usual first.

    >>> cpu = Processor(name="cpu", backend="null", units=frozenset({"core0"}))
    >>> machine_states([cpu], 0.01)
    [{}, {'cpu': inf}, {'cpu': 0.01}]
    """
    idle: Mapping[str, float] = {}
    lost = [{one.name: math.inf} for one in processors]
    alone = [{p.name: busy_s for p in processors if not p.units <= one.units} for one in processors]
    busy = [{p.name: busy_s for p in processors if p.excludes(one)} for one in processors]
    found = [idle, *lost, *alone, *busy]
    return [state for at, state in enumerate(found) if state not in found[:at]]
