"""Who gives models priorities is told once if the policy makes little of them."""

from __future__ import annotations

import pytest

from coinfer.core.policy import PriorityUse
from coinfer.policies import make_policy, policy_names
from coinfer.policies.priority_warning import priority_warning

OPTIONS = {"fixed": {"assignment": {"m": "p"}}}


def warning(name: str, priorities: list[int], **options) -> str | None:
    return priority_warning(name, make_policy(name, **options), priorities)


def test_the_policies_that_read_priorities_say_so() -> None:
    uses = {n: make_policy(n, **OPTIONS.get(n, {})).priority_use() for n in policy_names()}
    full = {name for name, use in uses.items() if use is PriorityUse.FULL}
    assert full == {"priority", "earliest_finish"}
    assert PriorityUse.LITTLE not in uses.values()


def test_a_policy_that_looks_little_at_priorities_is_named_with_one_that_goes_by_them() -> None:
    assert warning("earliest_finish", [0, 5], boost_s=0.1) == (
        "models differ in priority, which policy earliest_finish hardly looks at; "
        "--policy earliest_finish or priority goes by it"
    )
    assert "policy sjf does not look at;" in (warning("sjf", [1, 2]) or "")


@pytest.mark.parametrize("priorities", [[], [0, 0], [5, 5]])
def test_equal_priorities_need_no_warning(priorities: list[int]) -> None:
    assert warning("fcfs", priorities) is None


@pytest.mark.parametrize("name", ["priority", "earliest_finish"])
def test_a_policy_that_goes_by_priorities_needs_no_warning(name: str) -> None:
    assert warning(name, [0, 5]) is None


def test_earliest_finish_goes_by_priorities_if_a_level_is_worth_enough() -> None:
    assert warning("earliest_finish", [0, 5], boost_s=1.5) is None
    assert "does not look at" in (warning("earliest_finish", [0, 5], boost_s=0) or "")
