"""What was seen is simulated under every policy: here, and in a process of its own."""

from __future__ import annotations

import threading
import time
from subprocess import Popen

import pytest

from coinfer.core.request import OnLate, Request
from coinfer.errors import PolicyError
from coinfer.experiments.policy_review import Advice, Review, review
from coinfer.experiments.review_child import reviewed
from coinfer.plan import Plan, PolicyChoice
from sim.machines import machine

PLAN = Plan.of(machine({"short": {"p": 0.002}, "long": {"p": 0.03}, "unseen": {"p": 0.1}}))
BUDGET = 1000


def busy(n: int = 60) -> list[Request]:
    """More long requests without hurry than can be served, and short ones that cannot wait."""
    found = []
    for number in range(n):
        at_s = 0.025 * number
        found.append(Request(2 * number, "short", at_s, at_s + 0.04, on_late=OnLate.DROP))
        found.append(Request(2 * number + 1, "long", at_s, at_s + 3.0))
    return found


def under(policy: str, requests: list[Request] | None = None, **options: object) -> Review:
    plan = PLAN.with_policy(PolicyChoice(name=policy, options=options))
    return Review(plan=plan, requests=requests or busy(), budget=BUDGET)


def test_what_serves_the_seen_requests_better_is_found_with_its_gain() -> None:
    advice = review(under("fcfs"))
    assert advice.policy.name != "fcfs"
    assert advice.gain > 0.2
    assert "in time" in advice.why
    assert "fcfs: " in advice.why


def test_the_best_policy_stays() -> None:
    best = review(under("fcfs")).policy
    advice = review(under(best.name, **best.options))
    assert advice == Advice(best, 0.0, advice.why, advice.simulated)
    assert advice.why.startswith("none of ")


def test_a_load_that_is_served_in_time_changes_nothing() -> None:
    calm = [Request(n, "short", 0.1 * n, 0.1 * n + 0.05) for n in range(100)]
    advice = review(under("fcfs", calm))
    assert advice.policy == PolicyChoice(name="fcfs")
    assert advice.why == "all is served and in time, also where times are off by 1.5x"
    assert advice.simulated < 2.5 * len(calm)  # nothing is searched
    waiting = [Request(n, "long", 0.02 * n) for n in range(100)]  # of which a third is not served
    assert review(under("fcfs", waiting)).simulated > 10 * len(waiting)


def test_requests_to_models_that_were_unloaded_are_left_aside() -> None:
    gone = [request._replace(model="gone") for request in busy()]
    assert review(under("fcfs", gone)) == Advice(
        PolicyChoice(name="fcfs"), 0.0, "what was asked for is not loaded any more", 0
    )
    assert review(under("fcfs", gone + busy())).policy.name != "fcfs"


def test_a_policy_that_knows_the_seen_models_only_is_not_taken() -> None:
    plan = PLAN.with_policy(PolicyChoice(name="round_robin"))
    assert review(Review(plan=plan, requests=busy(), budget=BUDGET)).policy.name != "fixed"


def test_the_same_requests_give_the_same_advice_in_a_process_of_its_own() -> None:
    asked = under("fcfs")
    assert reviewed(asked, 60.0) == review(asked)


def test_a_process_that_fails_or_takes_too_long_is_said() -> None:
    with pytest.raises(PolicyError, match="unknown policy 'an object of Mine'"):
        reviewed(under("an object of Mine"), 60.0)
    with pytest.raises(PolicyError, match=r"within 0\.05 s"):
        reviewed(under("fcfs"), 0.05)


def test_whoever_kills_the_process_ends_the_wait() -> None:
    started: list[Popen[bytes]] = []
    found: list[BaseException] = []

    def wait() -> None:
        try:
            reviewed(under("fcfs", busy(20_000)), 600.0, started.append)
        except PolicyError as error:
            found.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    until_s = time.monotonic() + 30.0
    while not started and time.monotonic() < until_s:
        time.sleep(0.01)
    started[0].kill()
    thread.join(30.0)
    assert not thread.is_alive()
    assert "failed" in str(found[0])
