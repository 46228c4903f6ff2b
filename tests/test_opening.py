"""What a plan tells the core of memory."""

from __future__ import annotations

import dataclasses

import pytest

from coinfer.core.events import MemoryGiven
from coinfer.errors import ConfigurationError, UnknownNameError
from coinfer.machine.batching import Batching
from coinfer.machine.machine import Machine
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.machine.span import Span
from coinfer.machine.variant_use import Use
from coinfer.opening import (
    check_memory,
    fits,
    fused_loaded,
    loadables,
    memory_given,
    model_loaded,
)
from coinfer.plan.fused_plan import FusedPlan
from coinfer.plan.model_plan import ModelPlan
from coinfer.plan.plan import Plan
from coinfer.plan.variant import GraphFile, Kind, Variant

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


@pytest.mark.parametrize(
    ("batching", "size"), [(None, 100), (Batching(4), 140), (Batching(5), 260), (Batching(16), 260)]
)
def test_a_place_takes_what_the_largest_planned_batch_takes(
    batching: Batching | None, size: int
) -> None:
    """Larger ones were measured, did not pay, and are never run."""
    entries = {
        ProfileKey("a", "cpu0", batch): entry(size)
        for batch, size in {1: 100, 2: 120, 4: 140, 8: 260}.items()
    }
    subject = plan(entries).with_batching("a", batching)
    assert [p.size_bytes for p in loadables(subject, "a", subject.profile)] == [size]


def test_of_a_cut_model_each_span_takes_what_its_own_batch_takes() -> None:
    sizes = {(0, 0): 10, (1, 1): 20}
    entries = {
        ProfileKey("a", "cpu0", batch, Span(*span)): entry(batch * size)
        for span, size in sizes.items()
        for batch in (1, 2, 4)
    }
    subject = plan(entries).with_batching("a", Batching(4, by_unit=(2, 4)))
    assert [p.size_bytes for p in loadables(subject, "a", subject.profile)] == [20, 80]


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


def with_small(use: Use, *, size: int = 40, original: int = 100, **memory: int) -> Plan:
    """Plan model a with a variant of another size."""
    entries = {
        ProfileKey("a", "cpu0"): entry(original),
        ProfileKey("a@int8", "cpu0"): entry(size),
    }
    found = plan(entries)
    spans = {"cpu0": (Span(),)}
    small = Variant(kind=Kind.INT8, spans=spans, error=0.01, use=use)
    variants = {Kind.ORIGINAL: Variant(spans=spans), Kind.INT8: small}
    if use is Use.ALWAYS:
        variants[Kind.ORIGINAL] = Variant()
    return dataclasses.replace(found, models={"a": ModelPlan(variants=variants)}, memory=memory)


def test_variants_take_room_beside_their_originals() -> None:
    subject = with_small(Use.WHEN_LATE, host=139)
    assert not fits(subject, ["a"])
    assert fits(dataclasses.replace(subject, memory={"host": 140}), ["a"])
    event = model_loaded(subject, "a", subject.profile, are_loaded=False)
    [variant] = event.variants
    assert [place.size_bytes for place in (*event.places, *variant.places)] == [100, 40]


def test_where_a_variant_always_serves_the_original_needs_no_room() -> None:
    check_memory(with_small(Use.ALWAYS, host=40))
    with pytest.raises(ConfigurationError, match="model 'a@int8' needs at least 40 B"):
        check_memory(with_small(Use.ALWAYS, host=39))
    with pytest.raises(ConfigurationError, match="model 'a' needs at least 100 B"):
        check_memory(with_small(Use.WHEN_LATE, host=99))


def with_fused(**memory: int) -> Plan:
    entries = {ProfileKey(name, "cpu0"): entry(100) for name in "ab"}
    entries[ProfileKey("a+1", "cpu0")] = entry(200)
    subject = dataclasses.replace(plan(entries), memory=memory)
    models = {name: subject.models[name] for name in "ab"}
    fused = FusedPlan(models=("a", "b"), graph=GraphFile("", ""), processors=("cpu0",))
    return dataclasses.replace(subject, models=models, fused={"a+1": fused})


def test_fused_variants_take_room_beside_their_members() -> None:
    subject = with_fused(host=399)
    assert fits(subject, ["a"])
    assert not fits(subject, ["a", "b"])
    assert fits(dataclasses.replace(subject, memory={"host": 400}), ["a", "b"])
    [place] = fused_loaded(subject, "a+1", subject.profile, are_loaded=False).places
    assert (place.size_bytes, place.is_loaded) == (200, False)


def test_a_fused_variant_without_room_is_not_offered() -> None:
    subject = with_fused(host=199)
    check_memory(subject)
    event = fused_loaded(subject, "a+1", subject.profile, are_loaded=False)
    assert (len(event.profile.entries), event.places) == (0, ())


class TestPins:
    def test_all_that_is_planned_of_them_is_pinned(self) -> None:
        subject = dataclasses.replace(plan(whole("a", "b"), host=250, GPU=250), pinned=("a",))
        check_memory(subject)
        for model in "ab":
            places = model_loaded(subject, model, subject.profile).places
            assert [place.is_pinned for place in places] == [model == "a"] * 2

    def test_pins_that_do_not_fit_are_refused_with_the_number_needed(self) -> None:
        entries = {ProfileKey(name, "cpu0"): entry(100 << 20) for name in "abc"}
        subject = plan(entries, host=150 << 20)
        subject = dataclasses.replace(subject, pinned=("a", "b"))
        with pytest.raises(ConfigurationError, match="a, b cannot be pinned: they take 200 MiB"):
            check_memory(subject)
        subject = dataclasses.replace(subject, memory={"host": 250 << 20})
        with pytest.raises(ConfigurationError, match="'c' needs at least 100 MiB at a time") as e:
            check_memory(subject)
        assert "give a budget of 300MiB or more, or pin less" in str(e.value)

    def test_spans_of_others_that_never_fit_beside_them_are_not_offered(self) -> None:
        entries = {**whole("a"), ProfileKey("b", "cpu0"): entry(60)}
        subject = dataclasses.replace(plan(entries, host=150), pinned=("a",))
        assert model_loaded(subject, "b", subject.profile).places == ()

    def test_a_name_that_no_model_has_is_refused(self) -> None:
        subject = dataclasses.replace(plan(whole("a"), host=150), pinned=("x",))
        with pytest.raises(UnknownNameError, match="'x'"):
            check_memory(subject)
