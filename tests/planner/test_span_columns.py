"""Of the spans of a model that is cut, few processors of several widths are loaded."""

from __future__ import annotations

from collections import defaultdict

import pytest

from coinfer.backends.null import NullBackend
from coinfer.bound import throughput_bound
from coinfer.graph.partition_options import PartitionOptions
from coinfer.machine.core_groups import core_groups
from coinfer.machine.processor import Processor
from coinfer.machine.scaling import Scaling
from coinfer.machine.span import Span, completes
from coinfer.machine.topology import Core, Topology
from coinfer.plan import Plan
from coinfer.planner.columns import Demand
from coinfer.planner.make_plan import make_plan
from coinfer.planner.wishes import CutWish, Wishes
from coinfer.policies import make_policy
from coinfer.profiling import Profiler
from coinfer.profiling import profiler as profiler_module
from coinfer.sim import simulate
from coinfer.workload.scenario import Scenario
from planner.test_span_selection import FakeProfiler, alternating

CORES = 16
CONV = Scaling(mean_s=0.03, serial=0.1)


def processors() -> list[Processor]:
    """Two caches of eight cores."""
    cores = tuple(Core(threads=(n,), cache=n // 8) for n in range(CORES))
    return [
        Processor(
            name=f"p{group.name}",
            backend="null",
            units=frozenset(f"core{n}" for n in group.numbers),
            threads=len(group.numbers),
            spread=group.spread,
        )
        for group in core_groups(Topology(cores=cores, used=tuple(range(CORES))))
    ]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeProfiler:
    found = FakeProfiler(
        {p.name: {"Conv": CONV.seconds(p.threads), "Softplus": 1e-4} for p in processors()}
    )
    monkeypatch.setattr(profiler_module, "profile_models", found.profile)
    return found


def planned(demand: Demand) -> Plan:
    wish = CutWish(PartitionOptions(minimum_subgraph_size=1, max_span_s=0.035))
    profiler = Profiler(backends={"null": NullBackend()})
    model = alternating(3)
    feeds = [model.sample_inputs()]
    return make_plan(
        {"cut": model},
        processors(),
        Wishes(cuts={"cut": wish}, demand=demand),
        profiler,
        samples={"cut": feeds},
    ).plan


def widths(plan: Plan) -> dict[Span, set[int]]:
    threads = {p.name: p.threads for p in plan.processors}
    found = defaultdict(set)
    for key, _ in plan.profile:
        found[key.span].add(threads[key.processor])
    return found


def test_every_span_has_few_processors_of_several_widths(fake: FakeProfiler) -> None:
    plan = planned(Demand())
    found = widths(plan)
    assert len(found) > 1
    assert completes(found, plan.models["cut"].original.n_units)
    from_boundary = [
        set().union(*(of for span, of in found.items() if span.first == at))
        for at in range(plan.models["cut"].original.n_units)
    ]
    assert all(1 in of and max(of) >= 4 for of in from_boundary)
    assert len(plan.profile.entries) < len(plan.measured.entries) / 3
    (choice,) = [c for c in plan.models["cut"].choices if c.by == "worth_loading"]
    assert "units 0-" in choice.what
    assert "the bound keeps" in choice.what
    assert choice.alternatives


def test_the_bound_of_what_is_loaded_is_nearly_that_of_all(fake: FakeProfiler) -> None:
    plan = planned(Demand())
    best = throughput_bound(plan.measured, plan.processors, {"cut": 1.0}).throughput_per_s
    kept = throughput_bound(plan.profile, plan.processors, {"cut": 1.0}).throughput_per_s
    assert kept >= 0.99 * best


def test_rates_decide_how_wide_the_spans_are_loaded(fake: FakeProfiler) -> None:
    bound = throughput_bound(planned(Demand()).measured, processors(), {"cut": 1.0})

    def wide(load: float) -> int:
        demand = Demand(rates={"cut": load * bound.throughput_per_s}, is_absolute=True)
        return max(max(of) for of in widths(planned(demand)).values())

    assert wide(0.1) > wide(0.95)


def test_a_plan_keeps_the_rates_that_its_processors_were_chosen_for(fake: FakeProfiler) -> None:
    assert planned(Demand(rates={"cut": 3.0}, is_absolute=True)).rates == {"cut": 3.0}
    assert planned(Demand(rates={"cut": 3.0})).rates == {}


def test_spans_of_a_cut_model_run_wide_or_narrow_by_what_comes(fake: FakeProfiler) -> None:
    """The same plan at little and at high load."""
    plan = planned(Demand())
    bound = throughput_bound(plan.measured, plan.processors, {"cut": 1.0}).throughput_per_s

    def mean_width(load: float) -> float:
        rate = load * bound
        scenario = Scenario.model_validate(
            {
                "models": {"cut": {"source": "zoo:lenet"}},
                "arrivals": {"cut": {"poisson": rate}},
                "duration": 400 / rate,
                "warmup": 0.0,
                "admission_limit": 10**6,
            }
        )
        done = simulate(scenario, plan, make_policy("earliest_finish"), keep_records=True)
        threads = {p.name: p.threads for p in plan.processors}
        runs = [threads[e.processor] for e in done.recorder.executions()]
        return sum(runs) / len(runs)

    assert mean_width(0.1) > 2 * mean_width(0.8)
