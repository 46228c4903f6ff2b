"""Load: says which request is due when, for the load generator and for the simulator.

It reads no clock. The driver tells it what was submitted and what was answered, and when; it says
what is due next. Open-loop processes look one request ahead, so memory does not grow with the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from itertools import chain, count, islice, repeat
from pathlib import Path
from typing import NamedTuple, assert_never

import numpy as np

from coinfer.workload.arrivals import After, Closed, Offline, Order, Process, Trace
from coinfer.workload.rotation import rotation
from coinfer.workload.scenario import Scenario
from coinfer.workload.seeds import Purpose, generator
from coinfer.workload.times import Times, drawn_times, merged
from coinfer.workload.trace_file import TraceTimes, read_trace, times_of
from coinfer.workload.trigger import Trigger

__all__ = ["Due", "Load"]

REFUSED_PAUSE_S = 1e-3
"""A closed loop asks again this long after a request that was not completed was due.

Without a pause, a loop whose requests are refused at once would ask for ever at the same instant.
"""


class Due(NamedTuple):
    """One request that a load asks for.

    A named tuple because one is made per request, and because dues then order themselves by time.

    Attributes:
        time_s: The moment it must be submitted, in seconds from the start of the warm-up.
        stream: Which arrival process asks for it.
        index: How many requests of this model that process asked for before. Of a request that
            comes after another one it follows from the index of that one, and is that one if only
            one comes after it. Unique among the requests of a model.
        model: Which model.
        frame_s: The moment from which latency and deadline count, if that is not `time_s`: when
            the first request of its cascade was due.
    """

    time_s: float
    stream: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody calls on a due
    model: str
    frame_s: float | None = None

    @property
    def due_s(self) -> float:
        """The moment from which latency and deadline count."""
        return self.time_s if self.frame_s is None else self.frame_s


class Load:
    """The requests of a scenario, asked for step by step.

    Usage: submit each due at its time, call `after_due` when it was submitted and `after_answer`
    when it was answered; both return what is due next, which may be nothing.

    Attributes:
        withheld: By model, requests that were never asked for because the request that they come
            after was not completed. Counted for frames of the measuring window, so that they can
            be counted with what was dropped: for their users, it was.

    >>> from coinfer.workload.scenario_file import parse_scenario
    >>> load = Load(parse_scenario('''
    ... models: {net: "zoo:lenet"}
    ... arrivals: {net: {periodic: 10/s}}
    ... '''))
    >>> [first] = load.initial()
    >>> load.after_due(first)
    [Due(time_s=0.1, stream=0, index=1, model='net', frame_s=None)]

    Raises:
        ScenarioError: a trace file cannot be read.
    """

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._streams = _streams(scenario)
        self._cascades: dict[str, list[_Cascade]] = {}
        for stream in self._streams:
            if isinstance(stream, _Cascade):
                self._cascades.setdefault(stream.after, []).append(stream)
        self.withheld: dict[str, int] = {}

    @property
    def end_s(self) -> float:
        """Nothing is due at or after this moment; infinite if the load ends by itself."""
        return self._scenario.end_s

    @property
    def reacts(self) -> bool:
        """Whether answers make anything due; if not, nobody needs to call `after_answer`."""
        return any(isinstance(stream, _ClosedStream | _Cascade) for stream in self._streams)

    def initial(self) -> list[Due]:
        """Start: the first due of each open-loop process, all in-flight ones of closed loops."""
        return [due for stream in self._streams for due in stream.initial()]

    def in_order(self) -> Iterator[Due] | None:
        """Return all dues in order, in place of `initial` and `after_due`: faster, one by one.

        None if it is not known in advance, because answers make something due.
        """
        streams = [stream for stream in self._streams if isinstance(stream, _OpenStream)]
        if len(streams) < len(self._streams):
            return None
        models = [stream.model for stream in streams]
        blocks = merged([stream.blocks for stream in streams], self.end_s)
        return chain.from_iterable(
            _dues(times, owners, numbers, map(models.__getitem__, owners))
            for times, owners, numbers in blocks
        )

    def first_arrivals(self, count: int) -> list[tuple[float, str]]:
        """Return when the first requests come and their models, as far as no answer decides it.

        Requests of closed loops and cascades are not among them. Of one load only this or the dues
        can be asked for.
        """
        streams = [stream for stream in self._streams if isinstance(stream, _OpenStream)]
        models = [stream.model for stream in streams]
        blocks = merged([stream.blocks for stream in streams], self.end_s) if streams else ()
        arrivals = (
            (time_s, models[owner])
            for times, owners, _ in blocks
            for time_s, owner in zip(times, owners, strict=True)
        )
        return list(islice(arrivals, count))

    def after_due(self, due: Due) -> list[Due]:
        """Say what is due next, now that this one was submitted."""
        return self._streams[due[1]].after_due(due)

    def after_answer(self, due: Due, now: float, completed: bool) -> list[Due]:
        """Say what is due next, now that this one was answered.

        Args:
            due: What was answered.
            now: When, in seconds from the start.
            completed: False if it was dropped, rejected, cancelled or failed.
        """
        following = self._streams[due[1]].after_answer(due, now, completed)
        if due[3] not in self._cascades:
            return following
        if completed:
            return [*following, *self._followers(due, now)]
        self._withhold(due.model, due.index, due.due_s)
        return following

    def _followers(self, due: Due, now: float) -> Iterable[Due]:
        return (
            Due(now, cascade.stream, index, cascade.model, due.due_s)
            for cascade in self._cascades[due.model]
            for index in cascade.trigger.followers(due.index)
        )

    def _withhold(self, model: str, index: int, frame_s: float) -> None:
        """Count what would have come after this request, and after that."""
        scenario = self._scenario
        for cascade in self._cascades.get(model, ()):
            for follower in cascade.trigger.followers(index):
                if scenario.begin_s <= frame_s < scenario.end_s:
                    self.withheld[cascade.model] = self.withheld.get(cascade.model, 0) + 1
                self._withhold(cascade.model, follower, frame_s)

    def offered_rates_per_s(self) -> dict[str, float] | None:
        """Requests per second of each model; None if a closed loop decides some of them.

        Of a model that comes after another one: if all requests are completed.
        """
        rates = self.open_rates_per_s()
        return rates if len(rates) == len(self._scenario.models) else None

    def open_rates_per_s(self) -> dict[str, float]:
        """Requests per second of each model whose requests no closed loop decides."""
        rates = {s.model: s.rate_per_s for s in self._streams if isinstance(s, _OpenStream)}
        waiting = [s for s in self._streams if isinstance(s, _Cascade)]
        while known := [s for s in waiting if s.after in rates]:
            rates.update((s.model, s.mean_count * rates[s.after]) for s in known)
            waiting = [s for s in waiting if s.model not in rates]
        return {name: rates[name] for name in self._scenario.processes if name in rates}

    def offered_mix(self) -> dict[str, float] | None:
        """Share of each model in the requests, adding up to 1.

        None if some model has a closed loop of its own, as then the policy decides the shares, and
        if a trace has nothing before the end.
        """
        if self._scenario.mix is not None:
            amounts: Mapping[str, float] | None = _weights(self._scenario)
        elif self._scenario.offline is not None:
            amounts = self._scenario.offline.counts
        else:
            amounts = self.offered_rates_per_s()
        if amounts is None:
            return None
        total = sum(amounts.values())
        return {model: amount / total for model, amount in amounts.items()} if total else None


class _Stream:
    """One arrival process at work. By default it asks for nothing."""

    def initial(self) -> list[Due]:
        return []

    def after_due(self, _due: Due) -> list[Due]:
        return []

    def after_answer(self, _due: Due, _now: float, _completed: bool) -> list[Due]:
        return []


class _OpenStream(_Stream):
    """Requests that come whether or not earlier ones were answered."""

    def __init__(
        self, stream: int, model: str, rate_per_s: float, blocks: Iterator[Times], end_s: float
    ) -> None:
        self.model = model
        self.rate_per_s = rate_per_s
        self.blocks = blocks
        times = chain.from_iterable(block.tolist() for block in blocks)
        self._dues = _dues(times, repeat(stream), count(), repeat(model))
        self._end_s = end_s

    def initial(self) -> list[Due]:
        return self.after_due()

    def after_due(self, _due: Due | None = None) -> list[Due]:
        due = next(self._dues, None)
        return [] if due is None or due[0] >= self._end_s else [due]


class _Cascade(_Stream):
    """Requests that come after those of another model; the load makes them."""

    def __init__(self, stream: int, model: str, process: After, seed: int) -> None:
        self.stream = stream
        self.model = model
        self.after = process.model
        self.mean_count = process.mean_count
        self.trigger = Trigger(seed, model, process.probability, process.count)


class _TurnStream(_Stream):
    """Requests of several models in turn."""

    def __init__(self, stream: int, turns: Iterator[str]) -> None:
        self._stream = stream
        self._turns = turns
        self._asked: dict[str, int] = {}

    def _next(self, time_s: float) -> list[Due]:
        """Make the next request, if there is one."""
        model = next(self._turns, None)
        if model is None:
            return []
        index = self._asked.get(model, 0)
        self._asked[model] = index + 1
        return [Due(time_s, self._stream, index, model)]


class _ClosedStream(_TurnStream):
    """Always the same number in flight; whose turn it is, a rotation says."""

    def __init__(self, stream: int, turns: Iterator[str], in_flight: int, end_s: float) -> None:
        super().__init__(stream, turns)
        self._in_flight = in_flight
        self._end_s = end_s

    def initial(self) -> list[Due]:
        return [due for _ in range(self._in_flight) for due in self._next(0.0)]

    def after_answer(self, due: Due, now: float, completed: bool) -> list[Due]:
        time_s = now if completed else max(now, due.time_s + REFUSED_PAUSE_S)
        return self._next(time_s) if time_s < self._end_s else []


class _OfflineStream(_TurnStream):
    """Requests that are all due at the start, handed out one by one so that their order is kept."""

    def initial(self) -> list[Due]:
        return self._next(0.0)

    def after_due(self, _due: Due) -> list[Due]:
        return self._next(0.0)


def _streams(scenario: Scenario) -> list[_Stream]:
    if scenario.offline is not None:
        return [_OfflineStream(0, _turns(scenario.offline, scenario.seed))]
    if scenario.mix is not None:
        turns = rotation(_weights(scenario))
        return [_ClosedStream(0, turns, scenario.mix.in_flight, scenario.end_s)]
    trace = cache(read_trace)
    return [
        _stream(stream, model, process, scenario, trace)
        for stream, (model, process) in enumerate(scenario.processes.items())
    ]


def _stream(
    stream: int,
    model: str,
    process: Process,
    scenario: Scenario,
    trace: Callable[[Path], TraceTimes],
) -> _Stream:
    end_s, factor = scenario.end_s, scenario.rate_factor
    match process:
        case Closed():
            return _ClosedStream(stream, repeat(model), process.in_flight, end_s)
        case After():
            return _Cascade(stream, model, process, scenario.seed)
        case Trace():
            times = _recorded(model, process, trace)
            inside = np.searchsorted(times, end_s * factor)
            rate_per_s, blocks = float(inside) / end_s / factor, iter([times])
        case _:
            rng = generator(scenario.seed, Purpose.ARRIVALS, model)
            rate_per_s, blocks = process.rate_per_s, drawn_times(process, rng)
    scaled = (block / factor for block in blocks)
    return _OpenStream(stream, model, rate_per_s * factor, scaled, end_s)


def _recorded(model: str, process: Trace, trace: Callable[[Path], TraceTimes]) -> Times:
    source = process.source
    if isinstance(source, Path):
        return times_of(model, trace(source), source)
    return np.array(source)


def _turns(offline: Offline, seed: int) -> Iterator[str]:
    names = list(offline.counts)
    match offline.order:
        case Order.SHUFFLED:
            numbers = np.repeat(np.arange(len(names)), list(offline.counts.values()))
            generator(seed, Purpose.ORDER, "").shuffle(numbers)
            return (names[number] for number in numbers)
        case Order.INTERLEAVED:
            return islice(rotation(offline.counts), sum(offline.counts.values()))
        case Order.GROUPED:
            return chain.from_iterable(repeat(name, n) for name, n in offline.counts.items())
        case _:
            assert_never(offline.order)


def _weights(scenario: Scenario) -> dict[str, float]:
    given = scenario.mix.weights if scenario.mix is not None else {}
    return given or dict.fromkeys(scenario.models, 1.0)


def _dues(
    times: Iterable[float], streams: Iterable[int], indices: Iterable[int], models: Iterable[str]
) -> Iterator[Due]:
    """Make `Due(...)` of each, without a call into Python for each."""
    return map(partial(tuple.__new__, Due), zip(times, streams, indices, models, repeat(None)))
