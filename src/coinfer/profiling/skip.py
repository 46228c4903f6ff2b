"""Skip: that a processor cannot run a model, and why. A value; knows not who decides on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from coinfer.errors import BackendError
from coinfer.machine.profile import Profile

__all__ = ["Skip", "require_runnable"]


class Skip(NamedTuple):
    """A model that a processor does not run.

    Attributes:
        model: Its name.
        processor: The processor's name.
        reason: One sentence that names both.
    """

    model: str
    processor: str
    reason: str


def require_runnable(models: Iterable[str], profile: Profile, skips: Sequence[Skip]) -> None:
    """Refuse models that no processor runs.

    Raises:
        BackendError: names the first such model and every reason.

    >>> require_runnable(["a"], Profile(), [Skip("a", "cpu0", "model 'a': no operator Foo")])
    Traceback (most recent call last):
    coinfer.errors.BackendError: no processor runs model 'a': model 'a': no operator Foo
    """
    runnable = set(profile.models())
    for name in models:
        if name not in runnable:
            reasons = dict.fromkeys(skip.reason for skip in skips if skip.model == name)
            raise BackendError(f"no processor runs model {name!r}: " + "; ".join(reasons))
