"""Where the load has changed, other processors are advised if they serve it clearly better."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import pytest

from coinfer.bound import throughput_bound
from coinfer.core.request import Request
from coinfer.machine.machine import Machine
from coinfer.machine.machine_file import load_machine
from coinfer.machine.span import Span
from coinfer.plan import Plan
from coinfer.planner.column_child import columns_reviewed
from coinfer.planner.column_review import ColumnAdvice, ColumnReview, movable, review_columns
from coinfer.planner.columns import Demand, Room, few
from coinfer.planner.useful import useful

MODELS = ("mobilenet_v2", "resnet50", "resnet101")
THREADS = 128
"""That all pools together may hold."""


@cache
def machine() -> Machine:
    return load_machine("lib:cores-16")


def rates(load: float) -> dict[str, float]:
    mix = dict.fromkeys(MODELS, 1.0)
    bound = throughput_bound(machine().profile, machine().processors, mix)
    return {model: load * rate for model, rate in bound.per_model_per_s.items()}


def session_of(threads: int, name: str) -> str:
    return "cpu0" if threads == 1 else name  # as onnxruntime's are


def plan_for(load: float) -> Plan:
    """A plan as it is made for a share of the bound, that knows the times of all widths."""
    found = few(
        useful(machine().profile.restricted(MODELS), machine().processors),
        machine().processors,
        Demand(rates=rates(load), is_absolute=True),
        room=Room(threads=THREADS),
        session_of=lambda p: session_of(p.threads, p.name),
    )
    plan = Plan.of(machine(), models=MODELS)
    pairs = {(model, at) for model, each in found.items() for at in each.processors}
    return replace(plan.loading(plan.profile.of_pairs(pairs)), rates=rates(load))


def came(load: float, seed: int, count: int = 1000) -> list[Request]:
    """Requests at random, of one network as often as of another."""
    draw, at_s, found = random.Random(seed), 0.0, []
    per_s = sum(rates(load).values())
    for number in range(count):
        at_s += draw.expovariate(per_s)
        found.append(Request(number, draw.choice(MODELS), at_s, at_s + 0.5))
    return found


def asked(plan: Plan, requests: list[Request]) -> ColumnReview:
    threads = {p.name: p.threads for p in plan.processors}
    held = sum(threads[at] for m in plan.models.values() for at in m.original.spans) - 16 * 3
    return ColumnReview(
        plan=plan,
        requests=requests,
        models=movable(plan),
        sessions={p.name: session_of(p.threads, p.name) for p in plan.processors},
        room=Room(threads=THREADS - held),
        margin=0.03,
    )


def moved(plan: Plan, advice: ColumnAdvice) -> Plan:
    for name, (processors, _) in advice.columns.items():
        original = plan.models[name].original
        spans = dict.fromkeys(processors, (Span(),))
        plan = plan.with_variant(name, replace(original, spans=spans))
    return plan


def widths(plan: Plan) -> dict[str, list[int]]:
    threads: Mapping[str, int] = {p.name: p.threads for p in plan.processors}
    return {m: sorted(threads[at] for at in e.original.spans) for m, e in plan.models.items()}


@pytest.mark.parametrize(("made_for", "comes"), [(0.25, 0.5), (0.95, 0.3)])
def test_a_load_that_changed_far_moves_models_and_then_they_stay(
    made_for: float, comes: float
) -> None:
    plan = plan_for(made_for)
    advice = review_columns(asked(plan, came(comes, seed=1)))
    assert advice.columns, advice.why
    assert "ms, in place of " in advice.why
    assert sum(advice.rates.values()) == pytest.approx(sum(rates(comes).values()), rel=0.15)
    now, moves = plan, []
    for seed in range(1, 7):  # of the same load, other requests
        advice = review_columns(asked(now, came(comes, seed)))
        moves.append(bool(advice.columns))
        now = moved(now, advice)
    assert widths(now) != widths(plan)
    assert sum(moves) <= 2
    assert not any(moves[3:])


def test_the_load_that_a_plan_was_made_for_moves_nothing() -> None:
    for load in (0.3, 0.5, 0.8):
        plan = plan_for(load)
        for seed in (1, 2):
            advice = review_columns(asked(plan, came(load, seed)))
            assert not advice.columns, (load, seed, advice.why)


def test_pools_keep_within_what_there_is_room_for() -> None:
    plan = plan_for(0.25)
    advice = review_columns(asked(plan, came(0.5, seed=1)))
    found = [n for row in widths(moved(plan, advice)).values() for n in row if n > 1]
    assert sum(found) <= THREADS


def test_what_nobody_asked_for_stays_and_so_does_what_may_not_move() -> None:
    plan = plan_for(0.25)
    requests = [r for r in came(0.5, seed=1) if r.model != "resnet101"]
    advice = review_columns(asked(plan, requests))
    assert set(advice.columns) <= {"mobilenet_v2", "resnet50"}
    assert "resnet101" not in advice.rates
    nothing = replace(asked(plan, requests), models=["resnet101"])
    assert review_columns(nothing).why == "what was asked for cannot move"


def test_what_can_move_at_all() -> None:
    plan = plan_for(0.25)
    assert movable(plan) == list(MODELS)
    assert movable(replace(plan, memory={"host": 2**30})) == []
    assert movable(Plan.of(machine(), models=MODELS)) == []  # it is loaded everywhere
    two = replace(plan.machine, processors=plan.processors[:2])
    assert movable(replace(plan, machine=two)) == []  # there are no widths


def test_a_child_process_finds_the_same() -> None:
    plan = plan_for(0.25)
    order = asked(plan, came(0.5, seed=1))
    here, there = review_columns(order), columns_reviewed(order, 60.0)
    assert there.columns
    assert {name: list(at) for name, (at, _) in there.columns.items()} == {
        name: list(at) for name, (at, _) in here.columns.items()
    }
    assert (there.why, there.simulated) == (here.why, here.simulated)


def test_what_is_out_of_service_is_not_chosen_and_serves_nothing() -> None:
    plan, requests = plan_for(0.95), came(0.3, 0)
    free = review_columns(asked(plan, requests))
    assert free.columns
    wanted = {at for processors, _ in free.columns.values() for at in processors}
    loaded = {at for model in plan.models.values() for at in model.original.spans}
    lost = wanted - loaded
    assert lost
    advice = review_columns(replace(asked(plan, requests), lost=lost))
    assert advice.columns.keys() <= free.columns.keys()
    assert not any(lost.intersection(processors) for processors, _ in advice.columns.values())
    everything = [processor.name for processor in plan.processors]
    assert not review_columns(replace(asked(plan, requests), lost=everything)).columns
    rescued = review_columns(replace(asked(plan, requests), lost=loaded))
    assert {*rescued.columns} == {*MODELS}
    assert not any(loaded.intersection(at) for at, _ in rescued.columns.values())
