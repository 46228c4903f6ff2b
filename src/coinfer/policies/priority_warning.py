"""Priority warning: says if requests differ in priority and the policy makes little of that."""

from __future__ import annotations

from collections.abc import Iterable

from coinfer.core.policy import Policy, PriorityUse
from coinfer.errors import ConfigurationError
from coinfer.policies.registry import make_policy, policy_names

__all__ = ["priority_warning"]


def priority_warning(name: str, policy: Policy, priorities: Iterable[int]) -> str | None:
    """Return a sentence with the policies that go by priorities; None if there is nothing to say.

    Args:
        name: What the policy is called.
        policy: The policy.
        priorities: Those that requests will have; if all are equal there is nothing to look at.

    >>> "edf does not look at" in priority_warning("edf", make_policy("edf"), [0, 5])
    True
    """
    use = policy.priority_use()
    if use is PriorityUse.FULL or len(set(priorities)) < 2:
        return None
    looks = "hardly looks at" if use is PriorityUse.LITTLE else "does not look at"
    others = " or ".join(filter(_goes_by_priority, policy_names()))
    return f"models differ in priority, which policy {name} {looks}; --policy {others} goes by it"


def _goes_by_priority(name: str) -> bool:
    try:
        return make_policy(name).priority_use() is PriorityUse.FULL
    except ConfigurationError:
        return False  # it needs options, or its package is broken: nothing to recommend
