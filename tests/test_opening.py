"""What a plan tells the core of memory."""

from __future__ import annotations

import dataclasses

import pytest

from coinfer.core.events import MemoryGiven
from coinfer.errors import ConfigurationError
from coinfer.machine.machine import Machine
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.machine.span import Span
from coinfer.opening import check_memory, fits, loadables, memory_given, model_loaded
from coinfer.plan.model_plan import ModelPlan
from coinfer.plan.plan import Plan
from coinfer.plan.variant import Kind, Variant

CPU0, CPU1 = (
    Processor(name=f"cpu{n}", backend="lib", units=frozenset({f"core{n}"})) for n in range(2)
)
EXPRESS = Processor(
    name="cpu0+", backend="lib", units=frozenset({"core0+"}), overlays=frozenset({"core0"})
)
GPU = Processor(name="gpu", backend="lib", device="GPU", units=frozenset({"gpu"}))


def entry(size: int, load_s: float = 0.1) -> Measurement:
    return Measurement(seconds=(0.01,), load_s=load_s, resident_bytes=size - 1, run_bytes=1)


def plan(entries: dict[ProfileKey, Measurement], **memory: int) -> Plan:
    machine = Machine(
        processors=(CPU0, CPU1, EXPRESS, GPU),
        profile=Profile(entries),
        shares={"cpu1": "cpu0"},
        identity={"lib": "1.0"},
    )
    return dataclasses.replace(Plan.of(machine), memory=memory)


def whole(*models: str, size: int = 100) -> dict[ProfileKey, Measurement]:
    return {ProfileKey(m, p.name): entry(size) for m in models for p in (CPU0, CPU1, GPU)}


def test_processors_that_share_a_session_are_one_place_and_a_device_has_its_own_memory() -> None:
    found = loadables(plan(whole("a")), "a", Profile(whole("a")))
    assert [(p.processors, p.pool, p.size_bytes) for p in found] == [
        (("cpu0", "cpu1", "cpu0+"), "host", 100),
        (("gpu",), "GPU", 100),
    ]


def test_without_a_budget_nothing_is_said() -> None:
    subject = plan(whole("a"))
    assert memory_given(subject) is None
    assert model_loaded(subject, "a", subject.profile).places == ()


def test_a_budget_is_told_and_what_fits_is_there_from_the_start() -> None:
    subject = plan(whole("a", "b"), host=150)
    assert memory_given(subject) == MemoryGiven({"host": 150})
    assert fits(subject, ["a"])
    assert not fits(subject, ["a", "b"])
    assert all(p.is_loaded for p in model_loaded(subject, "a", subject.profile).places)


def test_models_of_the_same_content_take_room_once() -> None:
    subject = plan(whole("a", "b"), host=100)
    models = {
        name: dataclasses.replace(model, fingerprint="same")
        for name, model in subject.models.items()
    }
    assert fits(dataclasses.replace(subject, models=models), ["a", "b"])


def cut(sizes: dict[tuple[int, int], int], **memory: int) -> Plan:
    found = plan({ProfileKey("a", "cpu0", 1, Span(*s)): entry(n) for s, n in sizes.items()})
    spans = {"cpu0": tuple(Span(*span) for span in sizes)}
    variant = Variant(n_units=3, spans=spans)
    models = {"a": ModelPlan(variants={Kind.ORIGINAL: variant})}
    return dataclasses.replace(found, models=models, memory=memory)


def test_spans_that_never_fit_are_not_offered() -> None:
    subject = cut({(0, 2): 300, (0, 0): 90, (1, 2): 110}, host=120)
    check_memory(subject)
    event = model_loaded(subject, "a", subject.profile, are_loaded=False)
    assert {key.span for key, _ in event.profile} == {Span(0, 0), Span(1, 2)}
    assert {place.span for place in event.places} == {Span(0, 0), Span(1, 2)}


def test_the_error_names_what_the_way_with_the_smallest_spans_needs() -> None:
    subject = cut({(0, 2): 300 << 20, (0, 0): 90 << 20, (1, 2): 110 << 20}, host=100 << 20)
    with pytest.raises(ConfigurationError, match="needs at least 110 MiB at a time") as caught:
        check_memory(subject)
    assert "`memory: 110MiB` or more, or cut it into smaller spans" in str(caught.value)


def test_a_memory_that_no_processor_has_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="those of this machine are host, GPU"):
        memory_given(plan(whole("a"), NPU=1))
