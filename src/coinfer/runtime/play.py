"""Play a load on an engine and record it: warm-up, measuring window, drain."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from coinfer.backends.base import Tensors
from coinfer.core.dispatcher import Limits
from coinfer.core.policy import Policy
from coinfer.metrics.recorder import Recorder
from coinfer.metrics.records import Window
from coinfer.metrics.tally import Tallies
from coinfer.model import Model
from coinfer.processor import Processor
from coinfer.profiles import Profile
from coinfer.runtime import clock
from coinfer.runtime.engine import Engine
from coinfer.runtime.load_driver import LoadDriver, Tick
from coinfer.workload.load import Load
from coinfer.workload.scenario import Scenario

__all__ = ["Played", "play"]

_DRAIN_S = 60.0
_INTERRUPTED_DRAIN_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What a run left behind.

    Attributes:
        tallies: Counts of the measuring window.
        recorder: The records, if they were kept.
        origin_s: The moment, in the engine's time, at which the load began.
        interrupted: Whether the user stopped it before its end.
    """

    tallies: Tallies
    recorder: Recorder
    origin_s: float
    interrupted: bool


def play(
    scenario: Scenario,
    models: Mapping[str, Model],
    processors: Sequence[Processor],
    profile: Profile,
    policy: Policy,
    feeds: Mapping[str, Sequence[Tensors]],
    *,
    keep_records: bool = False,
    on_tick: Tick | None = None,
) -> Played:
    """Run a scenario to its end, or until the user interrupts it; what was begun is finished.

    Args:
        scenario: Arrivals, promises, duration.
        models: By name.
        processors: What may be used.
        profile: What each model is loaded on, and its expected times.
        policy: A fresh policy.
        feeds: Prepared inputs by model.
        keep_records: Keep a record of every request and execution, e.g. for a trace.
        on_tick: Called now and then with the seconds since the start.
    """
    interrupted = False
    with Engine(
        models,
        processors=processors,
        profile=profile,
        policy=policy,
        limits=Limits(max_waiting=scenario.admission_limit),
    ) as engine:
        with _settled_heap():
            driver = LoadDriver(engine, Load(scenario), feeds, scenario.models)
            begin_s, end_s = (driver.start_s + t for t in (scenario.warmup_s, scenario.end_s))
            window = Window(start_s=begin_s, end_s=end_s)
            recorder = Recorder(window=window, keep_records=keep_records)
            engine.attach(recorder)
            try:
                driver.play(on_tick)
                driver.stop()
                engine.drain(_DRAIN_S)
            except KeyboardInterrupt:
                interrupted = True
                driver.stop()
                recorder.end_window(clock.now())
                with suppress(KeyboardInterrupt):  # a second one: do not even wait
                    engine.drain(_INTERRUPTED_DRAIN_S)
        tallies = recorder.tallies(clock.now())
        engine.stop(drain=False, timeout_s=1.0)
    return Played(
        tallies=tallies, recorder=recorder, origin_s=driver.start_s, interrupted=interrupted
    )


@contextmanager
def _settled_heap() -> Iterator[None]:
    """Keep the objects made so far out of garbage collections: those would pause the run."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
