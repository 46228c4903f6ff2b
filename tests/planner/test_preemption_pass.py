"""Express processors stay in a plan where they can be of use, and the plan says why not else."""

from __future__ import annotations

import dataclasses

import pytest

from coinfer.backends.null import NullBackend
from coinfer.machine.processor import Processor
from coinfer.plan.plan import Plan
from coinfer.planner.make_plan import make_plan
from coinfer.planner.passes import preemption
from coinfer.planner.wishes import Wishes
from coinfer.profiling import Effort, Profiler
from coinfer.testing.models import tiny_linear

CORE = Processor(name="cpu0", backend="null", units=frozenset({"core0"}), cores=(0,))
EXPRESS = dataclasses.replace(
    CORE, name="cpu0+", units=frozenset({"core0+"}), overlays=frozenset({"core0"})
)

GPU = Processor(name="gpu0", backend="null", device="CUDA:0", units=frozenset({"cuda:0"}))
GPU_EXPRESS = dataclasses.replace(
    GPU,
    name="gpu0+",
    units=frozenset({"cuda:0+"}),
    overlays=GPU.units,
    options={"priority": "high"},
)


@pytest.fixture(autouse=True)
def works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preemption, "why_not_lowered", lambda _core: "")


def plan_of(*processors: Processor, models: int = 1, **wishes: object) -> Plan:
    profiler = Profiler(effort=Effort(max_runs=2), backends={"null": NullBackend()})
    named = {f"m{number}": tiny_linear().model for number in range(models)}
    return make_plan(named, processors or (CORE, EXPRESS), Wishes(**wishes), profiler).plan


def names(plan: Plan) -> list[str]:
    return [processor.name for processor in plan.processors]


def why(plan: Plan) -> str:
    (choice,) = [c for c in plan.models["m0"].choices if c.by == "preemption"]
    return str(choice)


@pytest.mark.parametrize("is_urgent", [True, None])
def test_they_stay_where_requests_differ_in_urgency_or_nobody_knows(is_urgent: object) -> None:
    plan = plan_of(is_urgent=is_urgent)
    assert names(plan) == ["cpu0", "cpu0+"]
    assert why(plan) == "urgent requests preempt, on all cores"


def test_they_go_where_all_requests_are_alike() -> None:
    plan = plan_of(is_urgent=False)
    assert names(plan) == ["cpu0"]
    assert "no request has a deadline" in why(plan)
    assert plan.machine.identity == plan_of(CORE).machine.identity


def test_they_go_where_threads_do_not_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preemption, "why_not_lowered", lambda _core: "it is forbidden")
    plan = plan_of(is_urgent=True)
    assert names(plan) == ["cpu0"]
    assert why(plan) == "none; express processors: it is forbidden"


def test_they_stay_where_threads_are_not_pinned() -> None:
    free = [dataclasses.replace(each, cores=()) for each in (CORE, EXPRESS)]
    assert names(plan_of(*free)) == ["cpu0", "cpu0+"]


def test_what_was_asked_for_stays() -> None:
    plan = plan_of(preempt=True, is_urgent=False)
    assert names(plan) == ["cpu0", "cpu0+"]
    assert not [c for c in plan.models["m0"].choices if c.by == "preemption"]


def test_an_engine_that_has_no_model_yet_keeps_them() -> None:
    assert names(plan_of(models=0)) == ["cpu0", "cpu0+"]


def test_those_of_a_gpu_need_no_thread_that_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preemption, "why_not_lowered", lambda _core: "it is forbidden")
    plan = plan_of(GPU, GPU_EXPRESS, is_urgent=True)
    assert names(plan) == ["gpu0", "gpu0+"]
    assert why(plan) == "urgent requests preempt, on GPUs"
    both = plan_of(CORE, EXPRESS, GPU, GPU_EXPRESS, is_urgent=True)
    assert names(both) == ["cpu0", "gpu0", "gpu0+"]
    assert why(both).startswith("urgent requests preempt, on GPUs; express processors on cores")
    assert names(plan_of(GPU, GPU_EXPRESS, is_urgent=False)) == ["gpu0"]
