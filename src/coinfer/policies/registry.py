"""Find a policy by name and build it from options. Knows no policy's rule."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation

from coinfer.core.policy import Policy, check_policy
from coinfer.errors import ConfigurationError, UnknownNameError
from coinfer.plan.plan import AUTO

__all__ = ["make_policy", "policy_names"]

_BUILT_IN = {
    "affinity": "Affinity",
    "comparative_advantage": "ComparativeAdvantage",
    "earliest_finish": "EarliestFinish",
    "edf": "EarliestDeadlineFirst",
    "fcfs": "FirstComeFirstServed",
    "fixed": "Fixed",
    "heft": "Heft",
    "heft_reserved": "HeftReserved",
    "least_slack": "LeastSlack",
    "max_min": "MaxMin",
    "min_min": "MinMin",
    "priority": "Priority",
    "round_robin": "RoundRobin",
    "shortest_expected_latency": "ShortestExpectedLatency",
    "sjf": "ShortestJobFirst",
    "sufferage": "Sufferage",
    "two_queues": "TwoQueues",
}
"""The class of each; its module has the name of the policy."""

_GROUP = "coinfer.policies"


def policy_names() -> tuple[str, ...]:
    """Names of all policies, built in and installed, sorted."""
    return tuple(sorted({*_BUILT_IN, *(e.name for e in entry_points(group=_GROUP))}))


def make_policy(name: str, **options: Any) -> Policy:
    """Build a policy.

    Args:
        name: One of `policy_names()`.
        options: Fields of the policy's dataclass; values are checked against its annotations.

    Returns:
        A fresh policy. Policies keep state: make one per engine or simulation.

    Raises:
        UnknownNameError: no policy of this name, or an option that it does not have.
        ConfigurationError: an option's value does not fit, the class is no policy, or the name is
            `auto`.

    >>> make_policy("priority", ageing_s=2).ageing_s
    2.0
    """
    if name == AUTO:
        raise ConfigurationError(
            f"policy {AUTO!r} stands for the one that planning finds best for a scenario, and here "
            "is none; name a policy, or make a plan with `coinfer plan SCENARIO` and take that"
        )
    cls = _find(name)
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        try:
            return check_policy(cls(**options))
        except TypeError as error:
            raise ConfigurationError(f"policy {name!r}: {error}") from error
    known = [field.name for field in dataclasses.fields(cls) if field.init]
    for option in options:
        if option not in known:
            raise UnknownNameError.of(f"option of policy {name!r}", option, known)
    try:
        policy = check_policy(TypeAdapter(cls).validate_python(options))
    except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation) as error:
        raise ConfigurationError(
            f"policy {name!r}: its fields cannot be checked: {error.message.splitlines()[0]}; a "
            "class with fields of types of its own needs "
            "__pydantic_config__ = {'arbitrary_types_allowed': True}"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        what = "is required" if first["type"] == "missing" else first["msg"]
        raise ConfigurationError(f"policy {name!r}: option {where!r}: {what}") from error
    _check_flags(name, policy, options)
    return policy


def _check_flags(name: str, policy: Policy, options: Mapping[str, Any]) -> None:
    """Refuse a truth value for a number: pydantic makes 1 of `on`, which YAML makes True."""
    for option, value in options.items():
        taken = getattr(policy, option, value)
        if isinstance(value, bool) and isinstance(taken, int | float) and taken is not value:
            raise ConfigurationError(
                f"policy {name!r}: option {option!r}: expected a number, got {value}"
            )


def _find(name: str) -> Callable[..., Policy]:
    for entry in entry_points(group=_GROUP, name=name):
        try:
            return cast(Callable[..., Policy], entry.load())
        except (ImportError, AttributeError) as error:
            raise ConfigurationError(
                f"policy {name!r} is registered as {entry.value!r}, which does not load: {error}; "
                "install or repair the package that provides it"
            ) from error
    if name not in _BUILT_IN:
        raise UnknownNameError.of("policy", name, sorted((AUTO, *policy_names())))
    module = import_module(f"coinfer.policies.{name}")
    return cast(Callable[..., Policy], getattr(module, _BUILT_IN[name]))
