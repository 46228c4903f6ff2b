"""Play a scenario's load on a server and record it: warm-up, measuring window, drain.

As `runtime.play` does on an engine: the first Ctrl-C ends the load and the window, the second does
not wait for what is in flight.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from coinfer.backends.base import Tensors
from coinfer.errors import ConfigurationError
from coinfer.load_test.call import Sender
from coinfer.load_test.remote import Remote
from coinfer.metrics.counts import ModelCounts, RunCounts
from coinfer.metrics.recorder import Recorder
from coinfer.metrics.records import Window
from coinfer.metrics.xrbench import ScoredCounts
from coinfer.model.datatypes import datatype_of
from coinfer.runtime import clock
from coinfer.runtime.interruption import Interruption
from coinfer.runtime.load_generator import LoadGenerator
from coinfer.workload.load import Load
from coinfer.workload.scenario import Scenario

__all__ = ["LoadTested", "play_on_server"]

_DRAIN_S = 60.0
_INTERRUPTED_DRAIN_S = 5.0
_LOOK_S = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadTested:
    """What a load test left behind.

    Attributes:
        run_counts: Counts of the measuring window.
        interrupted: Whether the user stopped it before its end.
        unanswered: Requests that had no answer when it gave up waiting.
    """

    run_counts: RunCounts
    interrupted: bool
    unanswered: int


def play_on_server(
    scenario: Scenario,
    feeds: Mapping[str, Sequence[Tensors]],
    sender: Sender,
    *,
    on_tick: Callable[[float], None] | None = None,
) -> LoadTested:
    """Send a scenario's requests to a server, each when it is due, and count what comes back.

    Args:
        scenario: Models, arrivals, deadlines.
        feeds: Inputs by model.
        sender: How they are sent; it is closed at the end.
        on_tick: Called now and then with the seconds since the start.

    Raises:
        ConfigurationError: the server does not answer, or has no such model, or the model takes
            other inputs.
    """
    remote = Remote(sender)
    try:
        for model, each in feeds.items():
            _check(model, each[0], remote.inputs(model))
        remote.prepare(feeds)
        with Interruption() as interruption:
            load = Load(scenario)
            driver = LoadGenerator(remote, load, feeds, scenario.models)
            recorder = _recorder(scenario, driver.start_s)
            remote.recorder = recorder

            def goes_on(now_s: float) -> bool:
                if on_tick is not None:
                    on_tick(now_s)
                return not interruption.requested

            driver.play(goes_on)
            is_endless = scenario.end_s == math.inf
            if interruption.requested:
                driver.stop()
                recorder.end_window(clock.now())
            _drain(remote, interruption, math.inf if is_endless else _DRAIN_S)
            driver.stop()
            if is_endless:
                recorder.end_window(clock.now())
            return LoadTested(
                run_counts=recorder.run_counts(clock.now(), withheld=load.withheld),
                interrupted=interruption.requested,
                unanswered=remote.in_flight,
            )
    finally:
        remote.close()


def _check(model: str, feed: Tensors, takes: Mapping[str, str]) -> None:
    """See that the server's model takes what the scenario's model does.

    Raises:
        ConfigurationError: it does not.
    """
    for name, array in feed.items():
        datatype = "BYTES" if array.dtype.kind in "OUS" else datatype_of(array.dtype)
        if takes.get(name) != datatype:
            known = ", ".join(f"{kind} {each}" for each, kind in takes.items())
            raise ConfigurationError(
                f"model {model!r} of the server takes {known}, and that of the scenario "
                f"{datatype} {name}; they are not the same"
            )


def _recorder(scenario: Scenario, origin_s: float) -> Recorder:
    return Recorder(
        window=Window(start_s=origin_s + scenario.begin_s, end_s=origin_s + scenario.end_s),
        keep_records=False,
        counts=ModelCounts if scenario.score is None else ScoredCounts,
    )


def _drain(remote: Remote, interruption: Interruption, patience_s: float) -> None:
    """Wait for the answers, less long once the user wants to go; a second Ctrl-C ends it."""
    until_s, hurried = clock.now() + patience_s, False
    with suppress(KeyboardInterrupt):
        while remote.in_flight and clock.now() < until_s:
            time.sleep(_LOOK_S)
            if interruption.requested and not hurried:
                until_s, hurried = min(until_s, clock.now() + _INTERRUPTED_DRAIN_S), True
