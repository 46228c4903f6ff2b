"""The policy is reviewed in time, on the load of now, and changes for a clear gain only."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from coinfer.core.request import Request
from coinfer.errors import ConfigurationError, UnknownNameError
from coinfer.experiments.auto_policy import AutoPolicy, auto_policy
from coinfer.experiments.policy_controller import (
    Due,
    PolicyController,
    Tally,
    Verdict,
)
from coinfer.experiments.policy_review import Advice, Review, review
from coinfer.plan import Plan, PolicyChoice
from sim.machines import machine

FCFS, EDF = PolicyChoice(name="fcfs"), PolicyChoice(name="edf")


class Driver:
    """Moves a controller through time, with requests at given rates.

    Attributes:
        dues: Each review that became due, with its moment.
        share: That of the requests that are answered in time.
        returns: Each policy that came back, with the moment.
    """

    def __init__(self, **settings: float) -> None:
        self.controller = PolicyController(AutoPolicy(**settings), 0.0)  # type: ignore[arg-type]
        self.now = 0.0
        self.dues: list[tuple[float, Due]] = []
        self.share = 1.0
        self.good = self.answered = 0.0
        self.returns: list[tuple[float, Verdict]] = []

    def go(self, seconds: float, **rates: float) -> None:
        """Let requests of models come evenly; one whose name is in capitals has a deadline."""
        until_s = self.now + seconds
        came = [
            (self.now + number / rate, name)
            for name, rate in rates.items()
            for number in range(round(seconds * rate))
        ]
        came.sort(reverse=True)
        while self.now < until_s:
            look_s = self.now + self.controller.due_in_s(self.now)
            while came and came[-1][0] < min(look_s, until_s):
                at_s, name = came.pop()
                deadline_s = at_s + 0.1 if name.isupper() else math.inf
                self.controller.seen.note(Request(0, name.lower(), at_s, deadline_s))
                self.good += self.share
                self.answered += 1
            self.now = min(look_s, until_s)
            if self.now < look_s:
                continue
            tallies = {"m": Tally(round(self.good), round(self.answered)), "idle": Tally(0, 0)}
            found = self.controller.look(look_s, tallies, EDF)
            if isinstance(found, Due):
                self.dues.append((look_s, found))
            elif found is not None:
                self.returns.append((look_s, found))

    def change(self) -> None:
        """Let a review find that `edf` is better than `fcfs`."""
        due = self.dues[-1][1]
        assert self.controller.judge(due, FCFS, Advice(EDF, 0.5, "", 0)).policy == EDF

    @property
    def moments(self) -> list[float]:
        return [at_s for at_s, _ in self.dues]


def test_a_steady_load_is_reviewed_once_per_interval() -> None:
    driver = Driver()
    driver.go(190, m=10)
    assert driver.moments == [60, 120, 180]
    assert not any(due.has_drifted for _, due in driver.dues)
    assert [len(due.requests) for _, due in driver.dues] == [300] * 3  # of the last half minute
    assert driver.dues[0][1].seconds == pytest.approx(30, abs=0.2)


def test_a_drift_is_reviewed_at_once_on_the_new_load_alone() -> None:
    driver = Driver()
    driver.go(65, m=10)
    driver.go(60, m=20)
    assert driver.moments == [60, 100]  # three whole windows after the change
    due = driver.dues[-1][1]
    assert due.has_drifted
    assert len(due.requests) == 600
    driver.go(60, m=20)
    assert driver.moments == [60, 100, 160]


@pytest.mark.parametrize(
    "go", [lambda d: d.go(60, M=10), lambda d: d.go(60, m=10, n=10), lambda d: d.go(60, m=5)]
)
def test_a_model_that_becomes_urgent_or_new_or_rare_is_a_drift(
    go: Callable[[Driver], None],
) -> None:
    driver = Driver()
    driver.go(60, m=10)
    go(driver)
    assert driver.dues[1][1].has_drifted


def test_a_burst_and_a_pause_are_none() -> None:
    driver = Driver()
    driver.go(60, m=10)
    driver.go(10, m=100)
    driver.go(10, m=10)
    driver.go(20)
    driver.go(20, m=10)
    assert driver.moments == [60, 120]


def test_too_few_requests_say_nothing_and_are_reviewed_as_soon_as_there_are_more() -> None:
    driver = Driver()
    driver.go(90, m=1)
    assert not driver.dues
    driver.go(30, m=3)
    assert driver.moments == [100]  # 20 and 30


def test_a_shorter_interval_has_shorter_windows() -> None:
    driver = Driver(interval_s=6.0)
    driver.go(8, m=100)
    driver.go(4, m=200)
    assert driver.moments == [6, 11]
    assert driver.dues[1][1].has_drifted


def judged(controller: PolicyController, present: PolicyChoice, advice: Advice) -> PolicyChoice:
    due = Due([Request(0, "m", 0.0)], 30.0, has_drifted=False)
    verdict = controller.judge(due, present, advice)
    assert verdict.why.what.startswith(verdict.policy.text)
    return verdict.policy


def test_only_a_gain_above_the_margin_changes_the_policy() -> None:
    controller = Driver(margin=0.1).controller
    assert judged(controller, FCFS, Advice(EDF, 0.11, "", 0)) == EDF
    assert judged(controller, FCFS, Advice(EDF, math.inf, "", 0)) == EDF
    assert judged(controller, FCFS, Advice(EDF, 0.1, "", 0)) == FCFS
    assert judged(controller, FCFS, Advice(EDF, -0.2, "", 0)) == FCFS
    assert judged(controller, FCFS, Advice(FCFS, 0.0, "", 0)) == FCFS
    assert controller.reviews == 5


def test_a_change_after_which_less_is_answered_in_time_is_taken_back() -> None:
    driver = Driver()
    driver.share = 0.8
    driver.go(60, m=10)
    driver.change()
    driver.share = 0.7
    driver.go(50, m=10)
    [(at_s, verdict)] = driver.returns
    assert at_s == 90  # three whole windows later
    assert verdict.policy == FCFS
    assert verdict.why.what == (
        "fcfs, again, until the load drifts: under edf 70.0% of the answers were good, 7/s, and "
        "under it 80.0%, 8/s"
    )
    driver.go(200, m=10)
    assert driver.moments == [60]  # what is simulated is not trusted for this load
    driver.go(40, m=20)
    assert driver.moments == [60, 340]
    driver.go(60, m=20)
    assert driver.moments == [60, 340, 400]


@pytest.mark.parametrize(
    ("rate", "share", "taken_back_s"),
    [(10, 0.3, 70), (10, 0.54, 80), (10, 0.7, 90), (200, 0.7, 70)],
)
def test_the_clearer_a_trial_goes_wrong_the_sooner_it_ends(
    rate: int, share: float, taken_back_s: float
) -> None:
    driver = Driver()
    driver.share = 0.8
    driver.go(60, m=rate)
    driver.change()
    driver.share = share
    driver.go(35, m=rate)
    assert [at_s for at_s, _ in driver.returns] == [taken_back_s]


def test_answers_of_models_without_deadlines_do_not_make_up_for_late_ones() -> None:
    controller = PolicyController(AutoPolicy(), 0.0)
    controller.seen.note(Request(0, "urgent", 0.0, 1.0))
    controller.seen.note(Request(1, "other", 0.0))
    controller.judge(Due([Request(0, "m", 0.0)], 1.0, False), FCFS, Advice(EDF, 0.5, "", 0))
    for number in range(4):  # a policy before, of which nothing is known
        controller.look(10.0 * number, {"urgent": Tally(9 * number, 10 * number)}, FCFS)
    controller.judge(Due([Request(0, "m", 0.0)], 1.0, False), FCFS, Advice(EDF, 0.5, "", 0))
    found = [
        controller.look(
            40.0 + 10.0 * number,
            {"urgent": Tally(27 + 5 * number, 30 + 10 * number), "other": Tally(99 * number, 99)},
            EDF,
        )
        for number in range(4)
    ]
    assert found[:3] == [None] * 3
    assert isinstance(found[3], Verdict)
    assert found[3].policy == FCFS


def test_rates_that_follow_from_a_change_of_policy_are_no_drift() -> None:
    driver = Driver()
    driver.go(60, m=10, n=10)
    driver.change()
    driver.go(59, m=10, n=20)  # n follows from answers of m, of which there are more
    assert driver.moments == [60]
    driver.go(62, m=10, n=20)
    assert driver.moments == [60, 120, 180]
    assert not any(due.has_drifted for _, due in driver.dues)


def test_the_policy_that_did_best_comes_back_also_later() -> None:
    driver = Driver()
    driver.share = 0.8
    driver.go(60, m=10)
    driver.change()
    driver.go(65, m=10)  # nothing is wrong yet
    sjf = PolicyChoice(name="sjf")
    due = driver.dues[-1][1]
    assert driver.controller.judge(due, EDF, Advice(sjf, 0.5, "", 0)).policy == sjf
    driver.share = 0.78
    driver.go(45, m=10)
    assert not driver.returns
    driver.share = 0.5
    driver.go(30, m=10)
    assert [verdict.policy for _, verdict in driver.returns] == [FCFS]


@pytest.mark.parametrize("share", [0.79, 0.8, 0.95])
def test_a_change_after_which_as_much_is_answered_in_time_stays(share: float) -> None:
    driver = Driver()
    driver.share = 0.8
    driver.go(60, m=10)
    driver.change()
    driver.share = share
    driver.go(120, m=10)
    assert not driver.returns
    assert driver.moments == [60, 120, 180]


def test_more_answers_of_which_fewer_are_in_time_are_no_step_back() -> None:
    driver = Driver()
    driver.share = 0.8
    driver.go(60, m=10)
    driver.change()
    driver.share = 0.7
    driver.go(50, m=12)
    assert not driver.returns


def test_two_that_are_nearly_as_good_do_not_alternate() -> None:
    controller, present = Driver().controller, FCFS
    for number in range(20):
        other = EDF if number % 2 else PolicyChoice(name="sjf")
        present = judged(controller, present, Advice(other, 0.029, "", 0))
    assert present == FCFS


def test_loads_that_alternate_near_a_tie_do_not_change_the_policy() -> None:
    plan = Plan.of(machine({"m": {"p": 0.01, "q": 0.011}, "n": {"p": 0.012, "q": 0.01}}))
    plan = plan.with_policy(FCFS)
    driver, verdicts = Driver(interval_s=12.0, budget=800), []
    for number in range(5):
        driver.go(12, **({"M": 70.0, "N": 60.0} if number % 2 else {"M": 60.0, "N": 70.0}))
    for _, due in driver.dues:
        advice = review(Review(plan=plan, requests=due.requests, budget=800))
        verdicts.append(driver.controller.judge(due, plan.policy, advice).policy)
    assert len(verdicts) >= 4
    assert verdicts == [FCFS] * len(verdicts)


def test_what_makes_no_sense_is_refused() -> None:
    for name in ("interval_s", "margin", "budget"):
        with pytest.raises(ConfigurationError, match=name):
            AutoPolicy(**{name: -1})  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="interval_s"):
        AutoPolicy(interval_s="soon")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="interval_s"):
        auto_policy("auto", {"interval": 3.0})
    assert auto_policy("auto") == AutoPolicy()
    assert auto_policy("edf", {"margin": 1}) is None
