"""Brief runs take turns on one processor; what takes longer does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest

from coinfer.core.commands import SetTimer
from coinfer.core.events import LoadedVariant, ModelLoaded, ProcessorLost
from coinfer.core.limits import Limits
from coinfer.core.request import OnLate
from coinfer.machine.batching import Batching
from coinfer.machine.processor import Processor
from coinfer.machine.variant_use import Use
from coinfer.policies import make_policy
from coinfer.testing.machine import VirtualMachine, processors, profile

WAKE_S = 50e-6
CORES = ("cpu0", "cpu1", "cpu2")
MANY = tuple(f"cpu{number}" for number in range(40))


def cores(*names: str, wake_s: float = WAKE_S, **wide: tuple[str, ...]) -> list[Processor]:
    return [dataclasses.replace(each, wake_s=wake_s) for each in processors(*names, **wide)]


def machine(
    seconds: Mapping[str, Mapping[str, float]],
    everyone: list[Processor] | None = None,
    **fields: object,
) -> VirtualMachine:
    """Build a machine; by default requests may share runs, though each is one of its own."""
    everyone = cores("cpu0", "cpu1") if everyone is None else everyone
    fields = {"batchings": dict.fromkeys(seconds, Batching(1)), **fields}
    return VirtualMachine(everyone, make_policy("earliest_finish"), seconds, **fields)  # type: ignore[arg-type]


def everywhere(seconds: float, names: tuple[str, ...] = ("cpu0", "cpu1")) -> dict[str, float]:
    return dict.fromkeys(names, seconds)


def places(found: VirtualMachine) -> list[str]:
    return [execution.processor for execution in found.executions]


@pytest.mark.parametrize("names", [("cpu0", "cpu1"), MANY], ids=["two cores", "many cores"])
@pytest.mark.parametrize("models", [1, 4])
def test_brief_runs_take_turns_on_one_processor(names: tuple[str, ...], models: int) -> None:
    seconds = {f"m{number}": everywhere(20e-6, names) for number in range(models)}
    found = machine(seconds, cores(*names))
    for name in [*seconds, *seconds, *seconds]:
        found.submit(name)
    found.run()
    assert len(found.executions) == 3 * models
    assert len({*places(found)}) == 1


@pytest.mark.parametrize("names", [("cpu0", "cpu1"), MANY], ids=["two cores", "many cores"])
def test_longer_runs_do_not(names: tuple[str, ...]) -> None:
    found = machine({"m": everywhere(60e-6, names)}, cores(*names))
    for _ in range(4):
        found.submit()
    found.run()
    assert len({*places(found)}) == min(4, len(names))


def test_what_may_not_share_a_run_gains_nothing_by_turns() -> None:
    found = machine({"m": everywhere(20e-6)}, batchings={})
    found.submit()
    found.submit()
    assert {*places(found)} == {"cpu0", "cpu1"}


def test_where_waking_takes_no_time_that_is_known_they_do_not_either() -> None:
    found = machine({"m": everywhere(20e-6)}, cores("cpu0", "cpu1", wake_s=0.0))
    found.submit()
    found.submit()
    assert {*places(found)} == {"cpu0", "cpu1"}


def test_they_stay_where_they_were_whatever_is_learnt() -> None:
    """To go where the last run took a microsecond less would wake another thread each time."""
    found = machine({"m": everywhere(20e-6)}, service_s=lambda _: 45e-6)
    for at in range(10):
        found.submit(arrival_s=at * 1e-3)
        found.run()
    assert {*places(found)} == {"cpu0"}


def test_what_was_measured_tells_what_is_brief_and_not_what_is_learnt() -> None:
    """Runs that wait for the interpreter take longer: then turns would end when they pay most."""
    found = machine({"m": everywhere(20e-6)}, service_s=lambda _: 200e-6)
    for _ in range(20):
        found.submit()
    found.run()
    assert {*places(found)} == {"cpu0"}


def test_they_do_not_wait_for_a_long_run() -> None:
    found = machine({"long": everywhere(1.0), "m": everywhere(20e-6)})
    found.submit("long")
    numbers = [found.submit("m") for _ in range(3)]
    found.run(until_s=0.5)
    assert places(found) == ["cpu0", "cpu1", "cpu1", "cpu1"]
    assert all(number in found.finished_s for number in numbers)


def test_beside_something_longer_that_waits_all_is_decided_as_ever() -> None:
    found = machine({"long": everywhere(0.01), "m": everywhere(20e-6)})
    found.submit("m")
    long = found.submit("long")
    assert places(found) == ["cpu0", "cpu1"]
    found.run()
    assert found.finished_s[long] == pytest.approx(0.01)


def test_what_only_another_processor_can_run_does_not_wait() -> None:
    everyone = [*cores("cpu0", "cpu1"), *cores("npu")]
    found = machine({"m": everywhere(20e-6), "other": {"npu": 20e-6}}, everyone)
    found.submit("m")
    found.submit("m")
    other = found.submit("other")
    assert places(found)[0] == "cpu0"
    assert "npu" in places(found)
    found.run()
    assert found.finished_s[other] == pytest.approx(20e-6)


def test_a_run_that_lasts_far_too_long_is_not_waited_for() -> None:
    found = machine(
        {"m": everywhere(20e-6)},
        service_s=lambda execution: 10.0 if execution.id == 0 else execution.expected_s,
    )
    for _ in range(3):
        found.submit()
    found.run(until_s=0.004)
    assert places(found) == ["cpu0"]
    found.run(until_s=0.02)
    assert places(found) == ["cpu0", "cpu1", "cpu1"]


def test_a_processor_that_is_lost_is_not_waited_for() -> None:
    found = machine({"m": everywhere(20e-6)}, limits=Limits(retries=2))
    numbers = [found.submit() for _ in range(3)]
    found.post(ProcessorLost("cpu0", "told to die"))
    found.run()
    assert {*places(found)} == {"cpu0", "cpu1"}
    assert all(number in found.finished_s for number in numbers)


def test_all_that_waits_goes_together_since_no_other_processor_is_woken_for_some_of_it() -> None:
    found = machine(
        {"m": everywhere(20e-6, CORES)},
        cores(*CORES),
        batchings={"m": Batching(16)},
        fixed_share=0.5,
    )
    for _ in range(9):
        found.submit()
    found.run()
    assert [len(execution.requests) for execution in found.executions] == [1, 8]


def test_so_do_members_of_a_fused_variant() -> None:
    seconds = {f"m{number}": everywhere(40e-6, CORES) for number in range(8)}
    found = machine(
        seconds,
        cores(*CORES),
        fused={"m0+7": (tuple(seconds), everywhere(160e-6, CORES))},
        handover_s=20e-6,
    )
    found.submit("m0")
    for name in seconds:
        found.submit(name)
    found.run()
    assert [len(execution.requests) for execution in found.executions] == [1, 8]


def test_what_may_have_to_be_loaded_first_is_served_as_ever() -> None:
    found = machine(
        {"a": everywhere(20e-6), "b": everywhere(20e-6)}, budget=10, sizes={"a": 8, "b": 8}
    )
    for name in ("a", "b", "a", "b"):
        found.submit(name)
    found.run()
    assert len(found.finished_s) == 4


def test_a_droppable_request_that_is_late_is_dropped_where_runs_take_turns() -> None:
    found = machine({"m": everywhere(40e-6)})
    numbers = [found.submit(deadline_s=100e-6, on_late=OnLate.DROP) for _ in range(6)]
    found.run()
    late = [n for n in numbers if n in found.finished_s and found.finished_s[n] > 100e-6]
    assert not late
    assert all(number in found.replies for number in numbers)


@pytest.mark.parametrize("names", [("cpu0", "cpu1"), MANY], ids=["two cores", "many cores"])
def test_what_others_go_before_for_ever_does_not_wait_for_its_turn_for_ever(
    names: tuple[str, ...],
) -> None:
    """More urgent requests keep one core busy all the time, while all others are idle."""
    found = machine({"m": everywhere(20e-6, names)}, cores(*names))
    found.submit(priority=1)
    for at in range(1000):
        found.submit(arrival_s=at * 20e-6, priority=1)
        found.submit(arrival_s=at * 20e-6, priority=1) if at < 2 else None
    patient = found.submit(priority=-1)
    found.run(until_s=0.006)
    assert patient in found.finished_s


def test_one_core_that_cannot_keep_up_gets_help() -> None:
    found = machine({"m": everywhere(25e-6)})
    numbers = {found.submit(arrival_s=at * 16e-6): at * 16e-6 for at in range(4000)}
    found.run()
    assert {*places(found)} == {"cpu0", "cpu1"}
    assert max(found.finished_s[n] - arrival_s for n, arrival_s in numbers.items()) < 0.006


@pytest.mark.parametrize("names", [("cpu0", "cpu1"), MANY], ids=["two cores", "many cores"])
@pytest.mark.parametrize("on_late", OnLate)
def test_nobody_is_late_by_waiting_for_its_turn(names: tuple[str, ...], on_late: OnLate) -> None:
    found = machine({"m": everywhere(20e-6, names)}, cores(*names))
    numbers = [found.submit(deadline_s=65e-6, on_late=on_late) for _ in range(6)]
    found.run()
    assert all(found.finished_s[number] <= 65e-6 for number in numbers)


def test_a_run_that_takes_longer_than_expected_is_not_waited_for_until_it_is_too_late() -> None:
    found = machine(
        {"m": everywhere(20e-6)},
        service_s=lambda execution: 1e-3 if execution.id == 0 else execution.expected_s,
    )
    found.submit()
    number = found.submit(deadline_s=200e-6)
    found.run()
    assert places(found) == ["cpu0", "cpu1"]
    assert found.finished_s[number] <= 200e-6


def test_what_has_to_change_the_model_of_a_processor_first_is_served_as_ever() -> None:
    """To change to and fro takes far longer than the runs."""
    found = machine({"a": everywhere(20e-6), "b": everywhere(20e-6)})
    swaps = {"cpu0": 1e-3, "cpu1": 1e-3}
    for name in ("b", "a"):
        known = profile(name, everywhere(20e-6))
        found.post(ModelLoaded(name, 1, known, swap_s=swaps))
    for _ in range(4):
        found.submit("a")
        found.submit("b")
    found.run()
    assert {(each.variant, each.processor) for each in found.executions} == {
        ("a", "cpu0"),
        ("b", "cpu1"),
    }


def test_they_do_not_take_turns_where_they_take_much_longer_than_elsewhere() -> None:
    """They would stay there after a moment at which the fast one was busy."""
    found = machine({"m": {"cpu0": 8e-6, "cpu1": 28e-6}, "long": {"cpu0": 1e-3}})
    found.submit("long")
    found.submit("m")
    found.run()
    for at in range(1, 5):
        found.submit("m", arrival_s=0.1 * at)
        found.run()
    assert places(found) == ["cpu0", "cpu1", "cpu0", "cpu0", "cpu0", "cpu0"]


def test_nor_where_something_takes_less_that_needs_no_waking() -> None:
    everyone = [*cores("cpu0", "cpu1"), *cores("npu", wake_s=0.0)]
    found = machine({"m": {"cpu0": 25e-6, "cpu1": 25e-6, "npu": 5e-6}}, everyone)
    found.submit("m")
    assert places(found) == ["npu"]


def test_so_much_that_shared_runs_would_last_long_is_dealt_out() -> None:
    """Waking a thread takes nothing then, compared with half of it."""
    found = machine({"m": everywhere(50e-6)}, batchings={"m": Batching(1024)}, fixed_share=0.1)
    for _ in range(400):
        found.submit(is_followed=True)
    found.submit()
    found.run()
    assert {*places(found)} == {"cpu0", "cpu1"}
    assert found.now < 0.012


def test_a_cheaper_variant_that_alone_may_serve_is_brief_whatever_is_looked_at_anew() -> None:
    cheap = LoadedVariant(
        "m@int8", 0.1, Use.ALWAYS, 1, profile("m@int8", everywhere(20e-6)), (), {}, Batching(1)
    )
    found = machine({"m": everywhere(1.0)}, variants={"m": (cheap,)})
    found.submit()
    found.submit()
    found.run()
    assert places(found) == ["cpu0", "cpu0"]


@pytest.mark.parametrize("deadline_s", [float("inf"), 1e-3])
def test_the_timer_is_not_set_for_each_of_them(deadline_s: float) -> None:
    """Each time wakes the thread of the timer."""
    counts = {}
    for wake_s in (0.0, WAKE_S):
        found = machine({"m": everywhere(20e-6)}, cores("cpu0", "cpu1", wake_s=wake_s))
        for at in range(2000):
            arrival_s = at * 15e-6
            found.submit(arrival_s=arrival_s, deadline_s=arrival_s + deadline_s)
        found.run()
        counts[wake_s] = sum(isinstance(each, SetTimer) for each in found.commands)
    assert counts[WAKE_S] <= counts[0.0] + 100


def test_an_urgent_brief_request_is_not_put_on_top_of_others_while_a_core_is_idle() -> None:
    plain = cores(*CORES)
    express = [
        Processor(
            name=f"{each.name}-express",
            backend="null",
            units=frozenset({f"{each.name}-express"}),
            overlays=each.units,
        )
        for each in plain
    ]
    everyone = [*plain, *express]
    names = tuple(each.name for each in everyone)
    found = machine({"long": everywhere(1.0, names), "m": everywhere(20e-6, names)}, everyone)
    found.submit("long")
    found.submit("m", deadline_s=0.1)
    found.submit("m", deadline_s=0.1)
    found.run(until_s=0.5)
    assert places(found) == ["cpu0", "cpu1", "cpu1"]
