"""Auto policy: how an engine chooses its policy while it works. A value; it chooses nothing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from coinfer.errors import ConfigurationError, UnknownNameError
from coinfer.plan.plan import AUTO

__all__ = ["MARGIN", "AutoPolicy", "auto_policy"]

MARGIN = 0.03
"""By how much another policy must be better. As far may the simulator be off: the limit that
`benchmarks/fidelity.py` holds its throughput to. What is nearer together than that is a tie."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoPolicy:
    """How an engine chooses its policy while it works, in place of a policy's name.

    Attributes:
        interval_s: Seconds between two reviews of the policy; on drift they come earlier.
        margin: By how much another policy must be better to be taken, as a share.
        budget: Requests that a review may simulate.

    >>> AutoPolicy(interval_s=30).margin
    0.03
    """

    interval_s: float = 60.0
    margin: float = MARGIN
    budget: int = 50_000

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ConfigurationError: one makes no sense.
        """
        for name, least in (("interval_s", 0.0), ("margin", -1e-300), ("budget", 0)):
            value: object = getattr(self, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (is_number and least < value < math.inf):  # type: ignore[operator]
                raise ConfigurationError(f"{name} is {value!r}; give a number above 0")


def auto_policy(
    policy: object, options: Mapping[str, object] = MappingProxyType({})
) -> AutoPolicy | None:
    """Return how the policy is chosen, if that is what was given in its place.

    Raises:
        ConfigurationError: an option is unknown, or makes no sense.

    >>> auto_policy("auto", {"interval_s": 30.0}).interval_s, auto_policy("edf")
    (30.0, None)
    """
    if isinstance(policy, AutoPolicy) and not options:
        return policy
    if policy != AUTO or not isinstance(policy, str):
        return None
    known = [field.name for field in dataclasses.fields(AutoPolicy)]
    for name in options:
        if name not in known:
            raise UnknownNameError.of(f"option of policy {AUTO!r}", name, known)
    return AutoPolicy(**options)  # type: ignore[arg-type]
