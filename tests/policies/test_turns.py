"""Brief runs take turns on one processor; what takes longer does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest

from coinfer.core.events import ProcessorLost
from coinfer.core.limits import Limits
from coinfer.core.request import OnLate
from coinfer.machine.batching import Batching
from coinfer.machine.processor import Processor
from coinfer.policies import make_policy
from coinfer.testing.machine import VirtualMachine, processors

WAKE_S = 30e-6
CORES = ("cpu0", "cpu1", "cpu2")
MANY = tuple(f"cpu{number}" for number in range(40))


def cores(*names: str, wake_s: float = WAKE_S, **wide: tuple[str, ...]) -> list[Processor]:
    return [dataclasses.replace(each, wake_s=wake_s) for each in processors(*names, **wide)]


def machine(
    seconds: Mapping[str, Mapping[str, float]],
    everyone: list[Processor] | None = None,
    **fields: object,
) -> VirtualMachine:
    everyone = cores("cpu0", "cpu1") if everyone is None else everyone
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
    for _ in range(50):
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
    found.run(until_s=0.009)
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
