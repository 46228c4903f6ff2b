"""PolicySuite: what every policy must do, whoever wrote it. Subclass it and run it with pytest.

It drives the real dispatcher in virtual time (`coinfer.testing.machine`) and knows no policy's
rule: what a policy prefers is for that policy's own tests. It needs no plug-in, only classes and
methods whose names start as pytest expects.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

from coinfer.core.commands import Command
from coinfer.core.dispatcher import Limits
from coinfer.core.events import ProcessorLost, ProcessorRestored
from coinfer.core.policy import Policy
from coinfer.core.request import OnLate, Outcome
from coinfer.testing.machine import VirtualMachine, processors

__all__ = ["PolicySuite"]

_MACHINE = processors("cpu0", "cpu1", "npu", all=("cpu0", "cpu1"))
_SECONDS = {
    "small": {"cpu0": 0.010, "cpu1": 0.012, "all": 0.007, "npu": 0.005},
    "large": {"cpu0": 0.300, "cpu1": 0.300, "all": 0.170, "npu": 0.020},
    "cpu_only": {"cpu0": 0.040, "cpu1": 0.040, "all": 0.025},
    "npu_only": {"npu": 0.050},
}

_OVERLOAD_S = 8.0

_CUT_SECONDS = {
    "split": {"cpu0": 0.060, "cpu1": 0.060, "all": 0.040, "npu": 0.006},
    "gappy": {"cpu0": 0.080, "npu": 0.020},
}
_CUT_UNITS = {"split": 3, "gappy": 5}
_CUT_GAPS = {"split": {"npu": {1}}, "gappy": {"cpu0": {1, 2}, "npu": {0, 4}}}
"""The accelerator has gaps in both models; nothing can run the second one whole."""


class PolicySuite:
    """The properties of a policy, as tests.

    Override `make`, and say in an attribute what the policy leaves out on purpose:

        class TestMine(PolicySuite):
            starves_because = "as published: the shortest job goes first for ever"

            def make(self, seconds):
                return Mine()

    Attributes:
        starves_because: Why a request may wait as long as others keep coming. Empty: it may not.
        leaves_idle_because: Why an idle processor may stay idle however much work waits that it
            could do. Empty: it must be used.
    """

    starves_because: ClassVar[str] = ""
    leaves_idle_because: ClassVar[str] = ""

    def make(self, seconds: Mapping[str, Mapping[str, float]]) -> Policy:
        """Return a fresh policy for models with these service times, by model and processor."""
        raise NotImplementedError("return a fresh policy")

    def machine(
        self,
        seconds: Mapping[str, Mapping[str, float]] = _SECONDS,
        *,
        limits: Limits = Limits(),
    ) -> VirtualMachine:
        """Return a machine of two cores, both cores as one processor, and an accelerator."""
        return VirtualMachine(_MACHINE, self.make(seconds), seconds, limits=limits)

    def test_all_work_is_done_on_a_heterogeneous_machine(self) -> None:
        """Every request completes; no decision is refused."""
        machine = self.machine()
        _submit_all(machine, 25)
        _assert_all_complete(machine)
        assert machine.dispatcher.n_unanswered == 0

    def test_models_of_several_units_run_where_their_units_can(self) -> None:
        """Every request runs each unit once, in order, also if nothing can run its model whole."""
        machine = VirtualMachine(
            _MACHINE, self.make(_CUT_SECONDS), _CUT_SECONDS, units=_CUT_UNITS, gaps=_CUT_GAPS
        )
        numbers = {machine.submit(model): model for _ in range(12) for model in _CUT_SECONDS}
        _assert_all_complete(machine)
        assert machine.replies.keys() == numbers.keys()
        for number, model in numbers.items():
            assert machine.reached[number] == _CUT_UNITS[model]

    def test_one_request_on_an_idle_machine_starts_at_once(self) -> None:
        """Nothing is gained by letting the only request wait beside idle processors."""
        for model in _SECONDS:
            machine = self.machine()
            machine.submit(model)
            assert [e.model for e in machine.executions] == [model]

    def test_batches_deadlines_and_priorities_are_served(self) -> None:
        """Whatever the fields of a request say, it completes if nothing else waits."""
        for fields in (
            {"batch": 8},
            {"deadline_s": 10.0},
            {"deadline_s": 10.0, "on_late": OnLate.DROP},
            {"priority": 5},
            {"priority": -5},
        ):
            machine = self.machine()
            number = machine.submit("large", **fields)
            machine.run()
            assert machine.outcomes() == {number: Outcome.COMPLETED}, fields

    def test_nothing_is_dropped_that_must_run(self) -> None:
        """A request whose deadline cannot be met runs all the same if it says so."""
        machine = self.machine()
        for model in _SECONDS:
            machine.submit(model, deadline_s=1e-4, on_late=OnLate.RUN)
        _assert_all_complete(machine)

    def test_what_may_be_dropped_is_answered_by_its_deadline(self) -> None:
        """A droppable request has started, or is answered, when its deadline is over."""
        machine = self.machine()
        for number in range(80):
            model = list(_SECONDS)[number % len(_SECONDS)]
            machine.submit(model, deadline_s=0.2, on_late=OnLate.DROP)
        machine.run()
        _assert_no_fault(machine)
        for number, reply in machine.replies.items():
            if reply.outcome is Outcome.DROPPED:
                assert machine.finished_s[number] <= 0.2
        assert all(e.started_s <= 0.2 for e in machine.executions)

    def test_nothing_starves(self) -> None:
        """A long request is served while short ones keep coming, 20 % more than can be served."""
        if self.starves_because:
            return
        assert self._wait_among_shorter_ones() < _OVERLOAD_S

    def _wait_among_shorter_ones(self) -> float:
        """Return when the long request started; infinite if the overload ended before."""
        machine = self.machine(
            {
                "short": {"cpu0": 0.050, "cpu1": 0.050, "npu": 0.040},
                "long": {"cpu0": 0.250, "cpu1": 0.250, "npu": 0.250},
            }
        )
        for _ in range(8):
            machine.submit("short")
        number = machine.submit("long", priority=-1)
        per_s = 1.2 * (2 / 0.050 + 1 / 0.040)
        for at in range(1, round(per_s * _OVERLOAD_S)):
            machine.submit("short", arrival_s=at / per_s)
        machine.run(until_s=_OVERLOAD_S)
        _assert_no_fault(machine)
        starts = [e.started_s for e in machine.executions if e.requests[0].id == number]
        return min(starts, default=math.inf)

    def test_no_processor_stays_idle_for_ever(self) -> None:
        """With enough work of all kinds, each processor or one that excludes it gets some."""
        if self.leaves_idle_because:
            return
        machine = self.machine()
        _submit_all(machine, 200)
        machine.run()
        used = {unit for e in machine.executions for unit in _units(e.processor)}
        assert used == {"cpu0", "cpu1", "npu"}

    def test_any_number_that_cannot_use_a_free_processor_keep_nobody_from_it(self) -> None:
        """What comes for it starts there at once, however long the queue before it."""
        seconds = {name: _SECONDS[name] for name in ("cpu_only", "npu_only")}
        machine = VirtualMachine(_MACHINE, self.make(seconds), seconds)
        for _ in range(150):
            machine.submit("cpu_only")
        numbers = [machine.submit("npu_only", arrival_s=0.01 + 0.06 * k) for k in range(5)]
        machine.run()
        for k, number in enumerate(numbers):
            assert machine.finished_s[number] <= 0.01 + 0.06 * k + 0.050 + 1e-6

    def test_a_lost_processor_costs_no_request(self) -> None:
        """What the others can run completes, also if the processor never comes back."""
        for lost in ("cpu0", "cpu1", "npu", "all"):
            machine = self.machine()
            _submit_all(machine, 10)
            machine.run(until_s=0.03)
            machine.lose(lost)
            machine.run()
            _assert_no_fault(machine)
            for number, outcome in machine.outcomes().items():
                if lost != "npu" or machine.replies[number].request.model != "npu_only":
                    assert outcome is Outcome.COMPLETED, machine.replies[number]
                else:
                    assert outcome in (Outcome.COMPLETED, Outcome.FAILED)

    def test_a_processor_that_comes_back_is_no_surprise(self) -> None:
        """Work goes on through losing and restoring every processor in turn."""
        machine = self.machine(limits=Limits(retries=10))
        _submit_all(machine, 20)
        for at, name in enumerate(("cpu0", "all", "cpu1")):
            machine.run(until_s=0.05 * (at + 1))
            machine.lose(name)
            machine.at(machine.now + 0.04, ProcessorRestored(name))
        _assert_all_complete(machine)

    def test_a_request_that_failed_runs_elsewhere(self) -> None:
        """The request is not left to wait for the processor that failed it."""
        machine = self.machine()
        number = machine.submit("large")
        (first,) = machine.running.values()
        machine.fail(first.id)
        machine.run()
        assert machine.outcomes() == {number: Outcome.COMPLETED}
        assert machine.executions[1].processor != first.processor

    def test_what_is_not_ready_waits_until_it_is(self) -> None:
        """A model whose requests are held back is not started; all else is served."""
        machine = self.machine()
        machine.hold_back("large", dict.fromkeys(_SECONDS["large"], 0.5))
        _submit_all(machine, 5)
        _assert_all_complete(machine)
        assert min(e.started_s for e in machine.executions if e.model == "large") >= 0.5

    def test_the_same_events_give_the_same_commands(self) -> None:
        """Nothing is drawn by chance, nothing depends on the order of a set."""

        def commands() -> list[Command]:
            machine = self.machine()
            _submit_all(machine, 15)
            for at in range(50):
                machine.submit("small", arrival_s=0.007 * at, priority=at % 3)
            machine.at(0.1, ProcessorLost("cpu1", "unplugged"))
            machine.run()
            return machine.commands

        assert commands() == commands()

    def test_waiting_work_without_running_work_is_never_forgotten(self) -> None:
        """If nothing runs, something starts, or a timer is set for the next look."""
        machine = self.machine()
        _submit_all(machine, 5)
        while machine.unanswered:
            assert machine.running or machine.timer_s < math.inf
            machine.step()


def _submit_all(machine: VirtualMachine, times: int) -> None:
    for _ in range(times):
        for model in _SECONDS:
            machine.submit(model)


def _units(name: str) -> frozenset[str]:
    return next(p.units for p in _MACHINE if p.name == name)


def _assert_no_fault(machine: VirtualMachine) -> None:
    assert machine.dispatcher.fault is None, machine.dispatcher.fault


def _assert_all_complete(machine: VirtualMachine) -> None:
    machine.run()
    _assert_no_fault(machine)
    assert set(machine.outcomes().values()) == {Outcome.COMPLETED}
