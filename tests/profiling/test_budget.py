"""Once the time for measuring is over, the rest is estimated by what was measured, and said so."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coinfer.api import Engine
from coinfer.backends.null import NullBackend
from coinfer.errors import ConfigurationError
from coinfer.graph.partition_options import Mode, PartitionOptions
from coinfer.machine.estimate import by_analogy
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.machine.span import Span
from coinfer.model import Model
from coinfer.planner.make_plan import make_plan
from coinfer.planner.wishes import CutWish, Wishes
from coinfer.profiling import Effort, Profiler, profile_models
from coinfer.profiling.budget import Budget
from coinfer.profiling.cache import ProfileCache
from coinfer.testing.models import int_gather, model_from_text, tiny_conv, tiny_linear, two_inputs
from planner import cut_models
from profiling.counting import Counting

QUICK = Effort(warmup_runs=0, min_runs=2, max_runs=2)
SECONDS = {"p": 2e-3, "q": 8e-3}
EXAMPLES: tuple[Callable[[], Model], ...] = (
    lambda: tiny_linear().model,
    lambda: two_inputs().model,
    lambda: int_gather().model,
    lambda: tiny_conv().model,
)


def models(count: int) -> dict[str, Model]:
    made = [make() for make in EXAMPLES[:count]]
    return {f"m{at}": dataclasses.replace(model, name=f"m{at}") for at, model in enumerate(made)}


def processors() -> tuple[Processor, ...]:
    return tuple(Processor(name=n, backend="null", units=frozenset({n})) for n in SECONDS)


def backend() -> NullBackend:
    return NullBackend(service_s=lambda _model, processor, _batch: SECONDS[processor])


def budget_for(groups: int) -> Budget:
    """A budget that measuring so many models spends."""
    moments = iter(range(1000))
    return Budget(groups, clock=lambda: float(next(moments)))


def test_with_time_enough_everything_is_measured() -> None:
    profile = profile_models(
        models(3), processors(), effort=QUICK, backends={"null": backend()}, budget=Budget(1e9)
    )
    assert not any(entry.estimated for _, entry in profile)
    assert len(profile.entries) == 6


def test_what_is_left_when_the_time_is_over_is_estimated_by_the_models_before() -> None:
    profile = profile_models(
        models(4), processors(), effort=QUICK, backends={"null": backend()}, budget=budget_for(2)
    )
    estimated = {(key.model, key.processor) for key, entry in profile if entry.estimated}
    # `p` is the faster one, so it is measured; what `q` takes follows from m0 and m1.
    assert estimated == {("m2", "q"), ("m3", "q")}
    for name in ("m2", "m3"):
        ratio = profile.expected_s(name, "q") / profile.expected_s(name, "p")
        assert ratio == pytest.approx(4.0, rel=0.5)


def test_the_first_model_is_measured_however_little_time_there_is() -> None:
    profile = profile_models(
        models(1), processors(), effort=QUICK, backends={"null": backend()}, budget=Budget(0.0)
    )
    assert not any(entry.estimated for _, entry in profile)
    assert len(profile.entries) == 2


def test_larger_batches_are_measured_on_one_processor_once_the_time_is_over(
    tmp_path: Path,
) -> None:
    """How it compares with others is known of single samples."""
    text = "agraph (float[N,4] x) => (float[N,4] y) { y = Relu(x) }"
    taken: list[tuple[str, int]] = []

    def seconds(_model: str, processor: str, batch: int) -> float:
        taken.append((processor, batch))
        return SECONDS[processor] * batch

    def measured(batch: int, budget: Budget) -> Profile:
        return profile_models(
            {"m0": model_from_text(text, name="m0")},
            [dataclasses.replace(each, options={"is": each.name}) for each in processors()],
            batches=(batch,),
            effort=QUICK,
            backends={"null": Counting(service_s=seconds)},
            cache=ProfileCache(tmp_path),
            budget=budget,
        )

    alone = measured(1, Budget())
    taken.clear()
    together = measured(4, Budget(0.0))
    assert {(key.processor, entry.estimated) for key, entry in together} == {
        ("p", False),
        ("q", True),
    }
    assert {processor for processor, batch in taken if batch == 4} == {"p"}
    factor = together.expected_s("m0", "p", batch=4) / alone.expected_s("m0", "p")
    assert together.expected_s("m0", "q", batch=4) == pytest.approx(
        factor * alone.expected_s("m0", "q"), rel=1e-6
    )


def test_a_plan_says_what_is_estimated() -> None:
    profiler = Profiler(effort=QUICK, backends={"null": backend()}, budget=budget_for(2))
    plan = make_plan(models(4), processors(), Wishes(keep_all=True), profiler).plan
    [warning] = plan.warnings
    assert warning.startswith("2 of 8 times are estimated from those of other models")


def test_an_analogy_needs_another_model_on_both_processors() -> None:
    seconds = {"a": {"p": 1.0}, "b": {"q": 2.0}}
    assert by_analogy(seconds, "a", "q") is None
    assert by_analogy({**seconds, "c": {"p": 2.0, "q": 5.0}}, "a", "q") == pytest.approx(2.5)


@pytest.mark.parametrize("seconds", [math.nan, -1.0, "20s", None, True])
def test_what_is_no_time_is_refused_at_once(seconds: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"the time for measuring is .*; give seconds"):
        Engine({"m": models(1)["m0"]}, processors=(), measure_s=seconds)


def test_what_is_expected_is_taken_once_the_time_is_over() -> None:
    profile = profile_models(
        models(2),
        processors(),
        effort=QUICK,
        backends={"null": backend()},
        budget=Budget(0.0),
        expected={"m1": {"p": 2.0, "q": 3.0}},
    )
    assert {key.model for key, entry in profile if entry.estimated} == {"m1"}
    assert profile.expected_s("m1", "q") == 3.0


@pytest.mark.parametrize("seconds", [0.0, 1e-3])
def test_spans_of_a_cut_model_are_estimated_once_the_time_is_over(seconds: float) -> None:
    runs: list[tuple[str, str]] = []

    def service_s(model: str, processor: str, _batch: int) -> float:
        runs.append((model, processor))
        return 10 * SECONDS[processor]

    profiler = Profiler(backends={"null": NullBackend(service_s=service_s)}, budget=Budget(seconds))
    wish = CutWish(PartitionOptions(mode=Mode.UNIT, pieces=3))
    model = cut_models.chain_with_skip().model
    plan = make_plan({"m": model}, processors(), Wishes(cuts={"m": wish}), profiler).plan
    times = {key.span: entry for key, entry in plan.measured if key.processor == "p"}
    whole = times.pop(Span(0, plan.models["m"].original.n_units - 1))
    assert times
    assert not whole.estimated
    assert all(entry.estimated for entry in times.values())
    assert len(runs) < 20, "only the whole model runs, and briefly"
    [warning] = [w for w in plan.warnings if "the time for measuring was over" in w]
    assert warning.startswith("chain: ")
    assert "are estimated" in warning
