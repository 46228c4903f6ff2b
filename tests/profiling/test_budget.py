"""Once the time for measuring is over, the rest is estimated by what was measured, and said so."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from coinfer.backends.null import NullBackend
from coinfer.machine.estimate import by_analogy
from coinfer.machine.processor import Processor
from coinfer.model import Model
from coinfer.planner.make_plan import make_plan
from coinfer.planner.wishes import Wishes
from coinfer.profiling import Effort, Profiler, profile_models
from coinfer.profiling.budget import Budget
from coinfer.testing.models import int_gather, tiny_conv, tiny_linear, two_inputs

QUICK = Effort(warmup_runs=0, min_runs=2, max_runs=2)
SECONDS = {"p": 1e-4, "q": 4e-4}
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


def test_a_plan_says_what_is_estimated() -> None:
    profiler = Profiler(effort=QUICK, backends={"null": backend()}, budget=budget_for(2))
    plan = make_plan(models(4), processors(), Wishes(keep_all=True), profiler).plan
    [warning] = plan.warnings
    assert warning.startswith("2 of 8 times are estimated from those of other models")


def test_an_analogy_needs_another_model_on_both_processors() -> None:
    seconds = {"a": {"p": 1.0}, "b": {"q": 2.0}}
    assert by_analogy(seconds, "a", "q") is None
    assert by_analogy({**seconds, "c": {"p": 2.0, "q": 5.0}}, "a", "q") == pytest.approx(2.5)
