"""Playing a scenario counts the measuring window, answers everything and can be interrupted."""

from __future__ import annotations

import gc
import signal
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from coinfer.backends.base import Session, Tensor, Tensors
from coinfer.backends.null import Faults, NullBackend
from coinfer.core.commands import Command
from coinfer.core.events import Arrived, Event
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.model import Model
from coinfer.runtime import play as play_module
from coinfer.runtime.play import Played, play
from coinfer.workload.scenario_file import parse_scenario
from runtime.engines import FEED, MODEL, cpus, ready

pytestmark = pytest.mark.alone


def played(
    arrivals: str = "{m: {periodic: 200/s}}",
    *lines: str,
    times: str = "duration: 0.1\nwarmup: 0.05\n",
    service_s: float = 0.0005,
    faults: Faults | None = None,
    models: str = "{m: x.onnx}",
    **options: Any,
) -> Played:
    text = f"models: {models}\narrivals: {arrivals}\n{times}"
    scenario = parse_scenario(text + "\n".join(lines))
    names = list(scenario.models)
    profile = Profile.from_seconds({name: {"p0": service_s, "p1": service_s} for name in names})
    return play(
        ready(scenario, MODEL, FEED, cpus("p0", "p1"), profile),
        backends={"null": NullBackend(service_s, faults=faults)},
        **options,
    )


def test_warm_up_is_played_but_not_counted() -> None:
    # Powers of two, so that no rounding decides whether the last one is due before the end.
    times = "duration: 0.125\nwarmup: 0.0625\n"
    result = played("{m: {periodic: 128/s}}", times=times, keep_records=True)
    assert len(list(result.recorder.requests())) == 24
    assert result.run_counts.models["m"].submitted == 16
    assert result.run_counts.duration_s == pytest.approx(0.125)


def test_everything_that_was_submitted_is_answered() -> None:
    counts = played("{m: {closed: 5}}").run_counts.models["m"]
    assert counts.submitted > 5
    assert counts.unfinished == 0
    assert counts.completed + sum(counts.others.values()) == counts.submitted


def test_the_origin_is_the_moment_the_load_began() -> None:
    result = played(keep_records=True)
    # Of the dues, not of the answers: on a busy machine the second may be answered first.
    assert min(each.due_s for each in result.recorder.requests()) == result.origin_s


def test_ticks_tell_the_seconds_since_the_start() -> None:
    seen: list[float] = []
    played(on_tick=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] >= 0.15


def test_more_than_the_admission_limit_is_rejected() -> None:
    faults = Faults()
    faults.hang(times=2)
    result = played(
        "{m: {periodic: 200/s}}",
        "admission_limit: 3",
        faults=faults,
        on_tick=lambda now_s: faults.release() if now_s > 0.1 else None,
    )
    rejected = {outcome.value: n for outcome, n in result.run_counts.models["m"].others.items()}
    assert rejected["rejected"] > 0


def test_a_processor_that_was_set_aside_is_a_warning_of_the_result() -> None:
    faults = Faults()
    faults.fail(processor="p1", times=3)
    done = played("{mix: {in_flight: 4}}", faults=faults)
    [warning] = [each for each in done.warnings if "set aside" in each]
    assert warning.startswith("processor 'p1' was set aside once: ")
    assert "fails because Faults.fail says so" in warning
    assert warning.endswith("it stayed out until the end")
    assert not any("set aside" in each for each in played(faults=Faults()).warnings)


def test_late_requests_are_dropped_where_the_scenario_says_so() -> None:
    models = "{m: {source: x.onnx, deadline: 4ms, on_late: drop}}"
    counts = played("{m: {periodic: 1000/s}}", service_s=0.003, models=models).run_counts.models[
        "m"
    ]
    dropped = {outcome.value: n for outcome, n in counts.others.items()}["dropped"]
    assert dropped > 0
    assert counts.hits + counts.late + dropped == counts.submitted


def test_finite_counts_are_played_to_their_end() -> None:
    result = played("{offline: {counts: {m: 40}}}", times="")
    counts = result.run_counts.models["m"]
    assert (counts.submitted, counts.completed) == (40, 40)
    assert result.run_counts.duration_s >= 40 * 0.0005 / 2


def test_an_interrupt_ends_the_window_and_answers_what_was_begun() -> None:
    def interrupt(now_s: float) -> None:
        if now_s > 0.2:
            signal.raise_signal(signal.SIGINT)

    result = played(
        "{m: {periodic: 200/s}}", times="duration: 1h\nwarmup: 0.05\n", on_tick=interrupt
    )
    counts = result.run_counts.models["m"]
    assert result.interrupted
    assert 0.1 < result.run_counts.duration_s < 60
    assert counts.submitted > 0
    assert counts.unfinished == 0


def test_an_interrupt_does_not_wait_for_ever_for_what_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(play_module, "_INTERRUPTED_DRAIN_S", 0.05)
    faults = Faults()
    faults.hang(times=10)
    result = played(
        "{m: {closed: 1}}",
        faults=faults,
        on_tick=lambda now_s: signal.raise_signal(signal.SIGINT) if now_s > 0.06 else None,
    )
    faults.release()
    assert result.interrupted
    assert result.run_counts.models.get("m") is None or result.run_counts.models["m"].completed == 0


def test_the_heap_is_thawed_afterwards() -> None:
    played()
    assert gc.get_freeze_count() == 0


class _Noting(NullBackend):
    """Notes how often sessions ran before the first request came."""

    def __init__(self) -> None:
        super().__init__(0.0005)
        self.runs: list[str] = []

    def sharing_key(self, processor: Processor) -> str:
        return processor.name

    def load(self, model: Model, processor: Processor) -> Session:
        session = super().load(model, processor)
        run = session.run

        def noted(inputs: Tensors) -> Mapping[str, Tensor]:
            self.runs.append(processor.name)
            return run(inputs)

        session.run = noted  # type: ignore[method-assign]
        return session


@pytest.mark.parametrize("preempts", [True, False])
def test_where_urgent_requests_preempt_each_session_has_run_before_they_come(
    *, preempts: bool
) -> None:
    """Its first run takes several times as long as others."""
    express = Processor(
        name="p0+", backend="null", units=frozenset({"p0+"}), overlays=frozenset({"p0"})
    )
    backend, before = _Noting(), list[str]()
    profile = Profile.from_seconds({"m": {"p0": 0.0005, "p1": 0.0005}})
    scenario = parse_scenario(
        "models: {m: x.onnx}\narrivals: {m: {periodic: 100/s}}\nduration: 0.05\nwarmup: 0\n"
    )
    processors = [*cpus("p0", "p1"), *([express] if preempts else [])]

    class Arrivals:
        def observe(self, event: Event, _commands: Sequence[Command], _now: float) -> None:
            if isinstance(event, Arrived) and not before:
                before.extend(["none", *backend.runs])

    play(
        ready(scenario, MODEL, FEED, processors, profile),
        backends={"null": backend},
        observer=Arrivals(),
    )
    _, *runs = before
    assert len(set(runs)) == len(runs)
    assert ({"p0", "p1"} <= set(runs)) == preempts
