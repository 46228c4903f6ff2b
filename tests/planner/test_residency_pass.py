"""How much memory plans give to what is loaded."""

from __future__ import annotations

import dataclasses

import pytest

from coinfer.backends.base import DeviceUse
from coinfer.backends.null import NullBackend
from coinfer.errors import ConfigurationError
from coinfer.machine.batching import Batching
from coinfer.machine.machine import Machine
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.machine.span import Span
from coinfer.machine.variant_use import Use
from coinfer.plan.plan import Plan
from coinfer.plan.variant import Kind
from coinfer.planner.passes import residency as module
from coinfer.planner.passes.residency import residency
from coinfer.planner.planning import Planning
from coinfer.planner.wishes import Wishes
from coinfer.profiling import Profiler

CPU = Processor(name="cpu", backend="null", units=frozenset({"core0"}))
ENTRY = Measurement(seconds=(0.01,), resident_bytes=100)


def planned(**memory: int) -> Plan:
    entries = {ProfileKey(name, "cpu"): ENTRY for name in "ab"}
    plan = Plan.of(Machine(processors=(CPU,), profile=Profile(entries)))
    plan = dataclasses.replace(plan, memory=memory)
    planning = Planning(models={}, wishes=Wishes(memory=memory), profiler=Profiler(), samples={})
    return residency(plan, planning)


@pytest.mark.parametrize(("there", "budget"), [(None, {}), (250, {}), (249, {"host": 199})])
def test_only_what_does_not_fit_gets_a_budget(
    there: int | None, budget: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "memory_bytes", lambda: there)
    plan = planned()
    assert plan.memory == budget
    assert bool(plan.warnings) == bool(budget)


class Gpu(NullBackend):
    """Has a device with memory of its own."""

    def __init__(self, usable: int | None) -> None:
        super().__init__()
        self.usable = usable

    def device_use(self, device: str) -> DeviceUse | None:
        if self.usable is None:
            return None
        return DeviceUse(
            held_bytes=0, kept_bytes=50, free_bytes=self.usable - 50, total_bytes=10**9
        )


@pytest.mark.parametrize(("usable", "budget"), [(None, {}), (250, {}), (249, {"CUDA:0": 199})])
def test_a_device_gets_a_budget_of_its_own_if_its_memory_does_not_hold_all(
    usable: int | None, budget: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "memory_bytes", lambda: 10**9)
    gpu = Processor(name="gpu0", backend="null", device="CUDA:0", units=frozenset({"gpu"}))
    entries = {ProfileKey(name, "gpu0"): ENTRY for name in "ab"}
    plan = Plan.of(Machine(processors=(gpu,), profile=Profile(entries)))
    profiler = Profiler(backends={"null": Gpu(usable)})
    planning = Planning(models={}, wishes=Wishes(), profiler=profiler, samples={})
    found = residency(plan, planning)
    assert found.memory == budget
    assert [text.startswith("memory of CUDA:0 holds not all") for text in found.warnings] == [
        True for _ in budget
    ]


def test_a_wish_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "memory_bytes", lambda: 1)
    assert planned(host=120).memory == {"host": 120}


def test_a_model_that_cannot_run_is_refused_while_planning() -> None:
    with pytest.raises(ConfigurationError, match="needs at least 100 B at a time"):
        planned(host=99)


@pytest.mark.parametrize(
    ("budget", "batching", "why"),
    [
        (116, Batching(16), ""),
        (115, Batching(8), "at most 8: of more, activations have no room in `memory`"),
        (102, Batching(2), "at most 2: of more, activations have no room in `memory`"),
        (101, None, "none: at most 1: of more, activations have no room in `memory`"),
    ],
)
def test_batches_are_halved_until_their_activations_have_room(
    budget: int, batching: Batching | None, why: str
) -> None:
    entries = {
        ProfileKey("a", "cpu", batch): dataclasses.replace(ENTRY, run_bytes=batch)
        for batch in (1, 2, 4, 8, 16)
    }
    plan = Plan.of(Machine(processors=(CPU,), profile=Profile(entries)))
    plan = dataclasses.replace(plan, memory={"host": budget}).with_batching("a", Batching(16))
    wishes = Wishes(memory={"host": budget})
    planning = Planning(models={}, wishes=wishes, profiler=Profiler(), samples={})
    found = residency(plan, planning).models["a"]
    assert found.batching == batching
    assert [each.what for each in found.choices][-1:] == ([why] if why else [])


def test_so_are_those_of_the_variant_that_serves() -> None:
    entries = {
        ProfileKey(name, "cpu", batch): dataclasses.replace(ENTRY, run_bytes=batch)
        for name in ("a", "a@compressed")
        for batch in (1, 2, 4, 8, 16)
    }
    profile = Profile(entries)
    plan = Plan.of(Machine(processors=(CPU,), profile=profile), models=["a"])
    original = plan.models["a"].original
    smaller = dataclasses.replace(
        original,
        kind=Kind.COMPRESSED,
        spans={"cpu": (Span(),)},
        use=Use.ALWAYS,
        error=0.01,
        batching=Batching(16),
    )
    plan = plan.with_batching("a", Batching(16)).with_variant("a", smaller)
    plan = dataclasses.replace(plan, memory={"host": 105})
    wishes = Wishes(memory={"host": 105})
    found = residency(plan, Planning(models={}, wishes=wishes, profiler=Profiler(), samples={}))
    assert found.batchings == {"a": Batching(16), "a@compressed": Batching(4)}
