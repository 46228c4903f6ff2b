"""Play a load on an engine and record it: warm-up, measuring window, drain.

The first Ctrl-C ends the load and the measuring window; requests that were begun are finished. A
second Ctrl-C does not wait for them. If the caller has seen enough, the load ends too, and only the
executions that run are finished.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import partial

from coinfer.backends import heap
from coinfer.backends.base import Backend
from coinfer.backends.patience import HangError
from coinfer.core.events import MemoryGiven
from coinfer.core.policy import Policy
from coinfer.errors import CoinferError
from coinfer.metrics.counts import ModelCounts, RunCounts
from coinfer.metrics.explanation import Explainer
from coinfer.metrics.memory_track import ProcessMemory
from coinfer.metrics.observers import Observer, Observers
from coinfer.metrics.recorder import Recorder
from coinfer.metrics.records import Window
from coinfer.metrics.xrbench import ScoredCounts
from coinfer.plan.plan import Plan
from coinfer.runtime import clock
from coinfer.runtime.apart import do_apart
from coinfer.runtime.engine import Engine
from coinfer.runtime.interruption import Interruption
from coinfer.runtime.load_generator import LoadGenerator
from coinfer.runtime.prepared import Prepared
from coinfer.workload.load import Load
from coinfer.workload.scenario import Scenario

__all__ = ["Played", "play"]

_DRAIN_S = 60.0
_INTERRUPTED_DRAIN_S = 5.0
_HASTE_S = 1.0
_LOOK_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What a run left behind.

    Attributes:
        run_counts: Counts of the measuring window.
        recorder: The records, if they were kept.
        origin_s: The moment, in the engine's time, at which the load began.
        interrupted: Whether the user stopped it before its end.
        warnings: What the engine did not do as asked, and which processors it set aside.
        held_before: What the process held before anything was loaded, if memory has a budget.
    """

    run_counts: RunCounts
    recorder: Recorder
    origin_s: float
    interrupted: bool
    warnings: tuple[str, ...]
    held_before: ProcessMemory | None = None


def play(
    ready: Prepared,
    *,
    scenario: Scenario | None = None,
    policy: Policy | None = None,
    keep_records: bool = False,
    observer: Observer | None = None,
    explainer: Explainer | None = None,
    on_tick: Callable[[float], None] | None = None,
    enough: Callable[[RunCounts], bool] | None = None,
    backends: Mapping[str, Backend] | None = None,
    spinning: AbstractContextManager[str] | None = None,
    memory: MemoryGiven | None = None,
    memory_limit: Callable[[], int | None] | None = None,
) -> Played:
    """Run a scenario to its end, or until the user interrupts it; what was begun is finished.

    Args:
        ready: The scenario, its plan, models and inputs.
        scenario: Another load of the same models; None: the prepared one.
        policy: A fresh policy; None: the plan's.
        keep_records: Keep a record of every request and execution, e.g. for a trace.
        observer: Sees every step of the core, from the loading of the models on.
        explainer: Explains one request of those that are due in the measuring window.
        on_tick: Called now and then with the seconds since the start, e.g. to show progress.
        enough: Asked a few times per second, with the counts so far; if it says so, load and window
            end, nothing that waits is run any more, and what runs is waited for.
        backends: Backends by name, in place of the prepared ones.
        spinning: Keeps cores awake meanwhile, as of `Engine`.
        memory: As of `Engine`.
        memory_limit: As of `Engine`.

    Raises:
        KeyboardInterrupt: interrupted before the load began.
        PolicyError: the policy failed, so nothing was scheduled from then on.
        BackendError: a model cannot be loaded on a processor of its plan.
    """
    scenario = scenario or ready.scenario
    with Engine(
        ready.plan,
        ready.models,
        policy=policy,
        limits=scenario.limits,
        backends=ready.backends if backends is None else backends,
        observer=observer,
        spinning=spinning,
        memory=memory,
        memory_limit=memory_limit,
    ) as engine:
        _warm_up(engine, ready)
        with heap.settled(), Interruption() as interruption:
            load = Load(scenario)
            attend = partial(engine.attend, only_urgent=True)
            driver = LoadGenerator(engine, load, ready.feeds, scenario.models, attend)
            recorder = _recorder(scenario, driver.start_s, engine.plan, keep_records=keep_records)
            _watch(engine, recorder, observer, explainer)
            playing = _Playing(engine, driver, recorder, load, interruption, enough)
            playing.play(on_tick)
            playing.finish(is_endless=scenario.end_s == math.inf)
        if engine.fault is not None:
            raise engine.fault
        run_counts = playing.counts()
        # A caller that has seen enough may use the sessions again: first nothing may run on them.
        engine.stop(drain=False, timeout_s=_DRAIN_S if playing.has_enough else _HASTE_S)
    return Played(
        run_counts=run_counts,
        recorder=recorder,
        origin_s=driver.start_s,
        interrupted=interruption.requested,
        warnings=(*engine.warnings, *_untold(engine)),
        held_before=engine.stats().memory.before,
    )


def _warm_up(engine: Engine, ready: Prepared) -> None:
    """Run each session once where urgent requests may be the first, as `coinfer.Engine` does.

    The first run on a processor takes several times as long as others, and holds up what is urgent.
    """
    if not any(processor.overlays for processor in engine.plan.processors):
        return
    for name, feeds in ready.feeds.items():
        try:
            engine.warm_up(name, feeds[0])
        except HangError as error:
            engine.warnings.append(str(error))
            return
        except CoinferError:  # a run fails: that is told when it is asked for
            continue


def _untold(engine: Engine) -> list[str]:
    """Return which processors were set aside, but for express ones of which a warning told."""
    told = "\n".join(engine.warnings)
    express = {processor.name for processor in engine.plan.processors if processor.overlays}
    return [str(o) for o in engine.outages if o.processor not in express or o.reason not in told]


def _recorder(scenario: Scenario, origin_s: float, plan: Plan, *, keep_records: bool) -> Recorder:
    return Recorder(
        window=Window(start_s=origin_s + scenario.begin_s, end_s=origin_s + scenario.end_s),
        keep_records=keep_records,
        counts=ModelCounts if scenario.score is None else ScoredCounts,
        variants=plan.variant_errors,
    )


def _watch(
    engine: Engine, recorder: Recorder, observer: Observer | None, explainer: Explainer | None
) -> None:
    """Let everybody see the steps from now on; the observer has seen those before, too."""
    if explainer is not None:
        explainer.watch(engine.view, recorder.window.start_s)
    others = [each for each in (observer, explainer) if each is not None]
    recorder.follow_memory(lambda: engine.memories, clock.now())
    engine.attach(Observers(recorder, *others) if others else recorder, explainer)


@dataclass(slots=True)
class _Playing:
    """A load that is being played, and whether it is to end before its time.

    Attributes:
        engine: Where it runs.
        driver: Submits its requests.
        recorder: Counts what becomes of them.
        load: The load.
        interruption: Whether the user wants to go.
        enough: Whether the caller has seen enough in the counts so far; None: never.
        has_enough: Whether the caller has; then that stays so.
    """

    engine: Engine
    driver: LoadGenerator
    recorder: Recorder
    load: Load
    interruption: Interruption
    enough: Callable[[RunCounts], bool] | None
    has_enough: bool = False

    def counts(self) -> RunCounts:
        """Return the counts of now."""
        return self.recorder.run_counts(clock.now(), withheld=self.load.withheld)

    def play(self, on_tick: Callable[[float], None] | None) -> None:
        """Let a thread of its own submit the load, and look on."""
        driver = self.driver
        do_apart(
            partial(driver.play, lambda _now_s: True),
            lambda: self.goes_on(on_tick, clock.now() - driver.start_s),
            driver.stop,
            "coinfer-load",
            driver.is_stuck,
        )

    def goes_on(self, on_tick: Callable[[float], None] | None, now_s: float) -> bool:
        """Show the moment; tell whether more is to be submitted."""
        if on_tick is not None:
            on_tick(now_s)
        return not (self.interruption.requested or self._look())

    def finish(self, *, is_endless: bool) -> None:
        """Wait for what was begun; a load without an end is measured until that is answered."""
        if self.interruption.requested or self.has_enough:
            self.driver.stop()
            self.recorder.end_window(clock.now())
        self._drain(math.inf if is_endless else _DRAIN_S)
        self.driver.stop()
        if is_endless:
            self.recorder.end_window(clock.now())

    def _look(self) -> bool:
        """Ask the caller about the counts of now, unless it has seen enough before."""
        if self.enough is not None and not self.has_enough:
            self.has_enough = self.enough(self.counts())
        return self.has_enough

    def _drain(self, patience_s: float) -> None:
        """Wait for the answers, less long once the user wants to go; a second Ctrl-C ends it."""
        until_s, hurried = clock.now() + patience_s, False
        with suppress(KeyboardInterrupt):
            while not self._look() and not self.engine.drain(_LOOK_S) and clock.now() < until_s:
                if self.interruption.requested and not hurried:
                    until_s, hurried = min(until_s, clock.now() + _INTERRUPTED_DRAIN_S), True
