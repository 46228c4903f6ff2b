"""All built-in policies pass the suite that third parties run on theirs."""

from __future__ import annotations

import math

from coinfer.core.policy import Policy
from coinfer.policies import make_policy, policy_names
from coinfer.testing.policy_suite import PolicySuite


class TestFirstComeFirstServed(PolicySuite):
    def make(self, seconds) -> Policy:
        return make_policy("fcfs")


class TestRoundRobin(PolicySuite):
    def make(self, seconds) -> Policy:
        return make_policy("round_robin")


class TestAffinity(PolicySuite):
    leaves_idle_because = "one model <-> one processor: one that is given no model stays idle"

    def make(self, seconds) -> Policy:
        return make_policy("affinity")


class TestFixed(PolicySuite):
    leaves_idle_because = "the user's assignment may name few processors"

    def make(self, seconds) -> Policy:
        return make_policy("fixed", assignment={m: min(row) for m, row in seconds.items()})


class TestShortestJobFirst(PolicySuite):
    starves_because = "as published: the cheapest model first, for ever"

    def make(self, seconds) -> Policy:
        return make_policy("sjf")


class TestPatientShortestJobFirst(PolicySuite):
    def make(self, seconds) -> Policy:
        return make_policy("sjf", patience_s=1.0)


class TestPriority(PolicySuite):
    def make(self, seconds) -> Policy:
        return make_policy("priority")


class TestPriorityWithoutAgeing(PolicySuite):
    starves_because = "as published: what stands highest on the list first, for ever"

    def make(self, seconds) -> Policy:
        return make_policy("priority", ageing_s=float("inf"))


class TestEarliestDeadlineFirst(PolicySuite):
    def make(self, seconds) -> Policy:
        return make_policy("edf")


class TestEarliestFinish(PolicySuite):
    def make(self, seconds) -> Policy:
        return make_policy("earliest_finish")


class TestMinMin(PolicySuite):
    starves_because = "as published: what completes first goes first, for ever"

    def make(self, seconds) -> Policy:
        return make_policy("min_min")


class TestPatientMinMin(PolicySuite):
    def make(self, seconds) -> Policy:
        return make_policy("min_min", patience_s=1.0)


class TestMaxMin(PolicySuite):
    def make(self, seconds) -> Policy:
        return make_policy("max_min")


class TestSufferage(PolicySuite):
    starves_because = "as published: what suffers most elsewhere goes first, for ever"

    def make(self, seconds) -> Policy:
        return make_policy("sufferage")


class TestPatientSufferage(PolicySuite):
    def make(self, seconds) -> Policy:
        return make_policy("sufferage", patience_s=1.0)


class TestComparativeAdvantage(PolicySuite):
    def make(self, seconds) -> Policy:
        return make_policy("comparative_advantage")


class TestHeft(PolicySuite):
    def make(self, seconds) -> Policy:
        return make_policy("heft")


class TestHeftReserved(PolicySuite):
    def make(self, seconds) -> Policy:
        return make_policy("heft_reserved")


class TestShortestExpectedLatency(PolicySuite):
    def make(self, seconds) -> Policy:
        return make_policy("shortest_expected_latency")


class TestLeastSlack(PolicySuite):
    def make(self, seconds) -> Policy:
        return make_policy("least_slack")


class TestTwoQueues(PolicySuite):
    def make(self, seconds) -> Policy:
        return make_policy("two_queues")


class TestTwoOtherQueues(PolicySuite):
    def make(self, seconds) -> Policy:
        return make_policy("two_queues", deadline="edf", best_effort="comparative_advantage")


def test_no_built_in_policy_is_left_out() -> None:
    suites = [value for value in globals().values() if isinstance(value, type)]
    seconds = {"m": {"p": 1.0}}
    covered = {
        type(suite().make(seconds))
        for suite in suites
        if issubclass(suite, PolicySuite) and suite is not PolicySuite
    }
    options = {"fixed": {"assignment": {}}}
    assert covered == {type(make_policy(n, **options.get(n, {}))) for n in policy_names()}


def test_the_suite_notices_a_policy_that_starves() -> None:
    # Otherwise an exemption would be declared for nothing.
    suite = TestShortestJobFirst()
    assert suite._wait_among_shorter_ones() == math.inf
