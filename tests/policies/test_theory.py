"""The policies from scheduling theory: their rules, and their throughput on a published table."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from coinfer.core.dispatcher import Limits
from coinfer.core.events import ModelLoaded, ModelUnloaded
from coinfer.errors import ConfigurationError
from coinfer.policies import comparative_advantage, make_policy
from coinfer.testing.machine import VirtualMachine, processors, profile
from policies.etri import BOUND_PER_S, MODELS, PROCESSORS, SECONDS

LIST_MAPPING = ("min_min", "max_min", "sufferage")
THEORY = (*LIST_MAPPING, "comparative_advantage")
PATIENT = Limits(hang_min_s=math.inf)


def build(policy, seconds, **options) -> VirtualMachine:
    names = dict.fromkeys(name for row in seconds.values() for name in row)
    chosen = make_policy(policy) if isinstance(policy, str) else policy
    return VirtualMachine(processors(*names), chosen, seconds, limits=PATIENT, **options)


def placed(machine: VirtualMachine) -> list[tuple[str, str]]:
    return [(e.model, e.processor) for e in machine.executions]


def throughput(policy: str, of_each: int, *, order: str = "shuffled") -> float:
    """Inferences per second of a backlog of equal counts on the published table."""
    machine = VirtualMachine(processors(*PROCESSORS), make_policy(policy), SECONDS, checked=False)
    jobs = [model for model in MODELS for _ in range(of_each)]
    if order == "shuffled":
        random.Random(7).shuffle(jobs)
    elif order == "in turn":
        jobs = list(MODELS) * of_each
    for model in jobs:
        machine.submit(model)
    machine.run()
    assert len(machine.executions) == len(jobs)
    return len(jobs) / machine.now


@pytest.mark.parametrize("order", ["shuffled", "in turn", "in blocks"])
def test_comparative_advantage_reaches_the_bound_tail_included(order: str) -> None:
    reached = throughput("comparative_advantage", 1000, order=order)
    assert 0.995 * BOUND_PER_S <= reached <= BOUND_PER_S * (1 + 1e-6)


def test_sufferage_comes_close_to_the_bound() -> None:
    assert 0.99 * BOUND_PER_S <= throughput("sufferage", 1000) <= BOUND_PER_S * (1 + 1e-6)


@pytest.mark.parametrize("policy", ["min_min", "max_min"])
def test_rules_that_know_only_completion_times_stay_behind(policy: str) -> None:
    # They leave one kind of work for the end; the figure is their own, not derived from elsewhere.
    assert 0.88 * BOUND_PER_S < throughput(policy, 1000) < 0.95 * BOUND_PER_S


# Two processors; `a` is quick on both, `b` slow, `c` far slower on the second.
THREE = {
    "a": {"p": 0.010, "q": 0.012},
    "b": {"p": 0.100, "q": 0.101},
    "c": {"p": 0.050, "q": 0.500},
}


@pytest.mark.parametrize(
    ("policy", "first"), [("min_min", "a"), ("max_min", "b"), ("sufferage", "c")]
)
def test_what_goes_first_is_what_the_rule_says(policy: str, first: str) -> None:
    machine = build(policy, {"block": {"p": 0.01, "q": 0.01}, **THREE})
    for _ in range(2):
        machine.submit("block")
    for model in THREE:
        machine.submit(model)
    machine.run(until_s=0.01)
    assert placed(machine)[2] == (first, "p")


@pytest.mark.parametrize("policy", THEORY)
def test_a_slow_free_processor_does_not_take_the_last_job(policy: str) -> None:
    machine = build(policy, {"m": {"fast": 0.01, "slow": 0.1}})
    for _ in range(5):
        machine.submit("m")
    machine.run()
    assert Counter(e.processor for e in machine.executions) == {"fast": 5}
    assert machine.now == pytest.approx(0.05)


@pytest.mark.parametrize("policy", THEORY)
def test_a_slow_processor_helps_when_enough_waits(policy: str) -> None:
    machine = build(policy, {"m": {"fast": 0.01, "slow": 0.1}})
    for _ in range(22):
        machine.submit("m")
    machine.run()
    assert Counter(e.processor for e in machine.executions) == {"fast": 20, "slow": 2}
    assert machine.now == pytest.approx(0.2)


@pytest.mark.parametrize("policy", THEORY)
def test_a_busy_processor_that_overruns_is_not_waited_for_for_ever(policy: str) -> None:
    machine = build(
        policy,
        {"m": {"fast": 0.01, "slow": 0.1}},
        service_s=lambda e: math.inf if e.processor == "fast" else e.expected_s,
    )
    for _ in range(2):
        machine.submit("m")
    machine.run(until_s=1.0)
    assert placed(machine) == [("m", "fast"), ("m", "slow")]


@pytest.mark.parametrize("policy", LIST_MAPPING)
def test_patience_puts_what_waited_long_first(policy: str) -> None:
    seconds = {"short": {"p": 0.01, "q": 0.5}, "long": {"p": 0.1, "q": 0.1}}
    machine = build(make_policy(policy, patience_s=0.0), seconds)
    for model in ("long", "long", "short", "long", "short"):
        machine.submit(model)
    machine.run(until_s=0.1)
    waiting = [model for model, _ in placed(machine)[2:]]
    assert waiting[0] == "short"  # it is the oldest, whatever the rule prefers


@pytest.mark.parametrize(
    ("policy", "options"),
    [
        *[
            (name, options)
            for name in LIST_MAPPING
            for options in ({"patience_s": -1}, {"window": 0})
        ],
        ("comparative_advantage", {"slack": 2}),
        ("comparative_advantage", {"drift": -1}),
        ("comparative_advantage", {"memory": 0}),
    ],
)
def test_options_without_sense_are_refused(policy: str, options: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        make_policy(policy, **options)


PAIR = {"a": {"p": 0.010, "q": 0.010}, "b": {"p": 0.040, "q": 0.020}}
"""Both are as quick on `a`, and q loses less on `b`."""


class TestComparativeAdvantage:
    def solved(self, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
        """The mixes that the linear program is solved for."""
        mixes: list[dict[str, float]] = []
        solve = comparative_advantage.throughput_bound

        def counting(seconds, processors, mix):
            mixes.append(dict(mix))
            return solve(seconds, processors, mix)

        monkeypatch.setattr(comparative_advantage, "throughput_bound", counting)
        return mixes

    def test_a_processor_takes_what_it_is_better_at_than_others(self) -> None:
        machine = build("comparative_advantage", PAIR)
        for _ in range(200):
            for model in "aaab":
                machine.submit(model)
        machine.run(until_s=1.0)
        by_place = Counter(placed(machine))
        assert by_place["b", "p"] == 0
        assert min(by_place["b", "q"], by_place["a", "q"]) > 10

    def test_shares_follow_the_optimum(self) -> None:
        # Of 6 pairs p does 6 a and 1 b, and q 5 b: both take 100 ms.
        machine = build("comparative_advantage", PAIR)
        for _ in range(600):
            machine.submit("a")
            machine.submit("b")
        machine.run()
        assert machine.now == pytest.approx(100 * 0.100, rel=0.005)

    def test_the_program_is_solved_rarely_under_a_steady_mix(self, monkeypatch) -> None:
        mixes = self.solved(monkeypatch)
        machine = build("comparative_advantage", PAIR)
        rng = random.Random(1)
        for at in range(2000):
            machine.submit(rng.choice("ab"), arrival_s=at / 110)
        machine.run()
        assert len(mixes) <= 5

    def test_the_lists_are_made_anew_when_the_mix_changes(self, monkeypatch) -> None:
        mixes = self.solved(monkeypatch)
        machine = build("comparative_advantage", PAIR)
        for at in range(3000):
            machine.submit("a" if at < 1500 else "b", arrival_s=at / 40)
        machine.run()
        assert mixes[0]["a"] > 0.9
        assert mixes[-1]["b"] > 0.8

    def test_the_lists_are_made_anew_when_the_times_change(self, monkeypatch) -> None:
        mixes = self.solved(monkeypatch)
        slower = {"p": 1.0, "q": 3.0}
        machine = build(
            "comparative_advantage",
            PAIR,
            service_s=lambda e: PAIR[e.model][e.processor] * slower[e.processor],
        )
        for _ in range(300):
            machine.submit("a")
        machine.run()
        assert len(mixes) >= 2

    def test_a_model_that_comes_is_served_and_one_that_goes_is_forgotten(self) -> None:
        machine = build("comparative_advantage", PAIR)
        machine.submit("a")
        machine.post(ModelLoaded("c", 1, profile("c", {"p": 0.03})))
        for model in "abc":
            machine.submit(model)
        machine.run()
        machine.post(ModelUnloaded("b"))
        for model in "acac":
            machine.submit(model)
        machine.run()
        assert machine.dispatcher.fault is None
        assert len(machine.executions) == 8

    def test_a_model_without_any_worth_is_served_too(self) -> None:
        # `y` has a processor of its own with time to spare: the optimum gives it no price.
        machine = build("comparative_advantage", {"x": {"p": 0.1}, "y": {"q": 0.001, "r": 0.001}})
        for _ in range(40):
            machine.submit("x")
            machine.submit("y")
        machine.run()
        assert {e.processor for e in machine.executions} == {"p", "q", "r"}
        assert machine.now == pytest.approx(4.0)

    def test_old_arrivals_do_not_let_the_counts_overflow(self) -> None:
        policy = make_policy("comparative_advantage", memory=1)
        machine = build(policy, {"m": {"p": 0.001}})
        for at in range(400):
            machine.submit("m", arrival_s=at * 0.002)
        machine.run()
        assert len(machine.executions) == 400
