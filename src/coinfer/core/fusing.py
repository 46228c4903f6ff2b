"""Fusing: which variants answer several models in one run, and which of their members may ride.

A fused variant has a slot per member; a run of it serves one waiting request of each of some of
them, and what the other slots compute is thrown away. The rules of what becomes of it:
- A member that is unloaded leaves its slot empty for good, whatever is loaded under its name then.
- With less than two members left, nothing is fused.
- If it fails `MOST_FAILURES` times in a row, nothing is fused from then on: its riders went on
  alone each time. So what one member's input spoils delays the others a few times only.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["MOST_FAILURES", "Fused", "Fusions"]

MOST_FAILURES = 3
"""So many failures in a row and a fused variant is not used any more."""


class Fused:
    """A variant that answers one request of each of several models in one run.

    Attributes:
        name: Its name.
        members: The models that may ride, in the order of their slots.
        slots: Number of slots; of those of other models nothing is wanted.
        handover_s: What handing over a run costs beyond it, a fused one or that of a member alone.
        failures: How many runs failed since one ended well.
    """

    __slots__ = ("failures", "handover_s", "members", "name", "slots")

    def __init__(self, name: str, members: Iterable[str], handover_s: float = 0.0) -> None:
        self.name = name
        self.handover_s = handover_s
        self.members = tuple(members)
        self.slots = len(self.members)
        self.failures = 0


class Fusions:
    """The fused variants that may be used.

    Attributes:
        by_name: By name.
        of: By model, those that it is a member of, the one with the most slots first.

    >>> fusions = Fusions()
    >>> fusions.add("f", ["a", "b", "c"])
    >>> fusions.leave("a"), [fused.members for fused in fusions.of["b"]]
    (True, [('b', 'c')])
    >>> fusions.leave("b"), fusions.of
    (True, {})
    """

    __slots__ = ("_known", "by_name", "of")

    def __init__(self) -> None:
        self._known: set[str] = set()
        self.by_name: dict[str, Fused] = {}
        self.of: dict[str, tuple[Fused, ...]] = {}

    def add(self, name: str, members: Iterable[str], handover_s: float = 0.0) -> None:
        """Take in a variant, or replace it."""
        self.by_name[name] = Fused(name, members, handover_s)
        self._known.add(name)
        self._settle()

    def leave(self, model: str) -> bool:
        """Note that a member is gone; tell whether it was one."""
        if model not in self.of:
            return False
        for fused in self.of[model]:
            fused.members = tuple([each for each in fused.members if each != model])
        self._settle()
        return True

    def failed(self, name: str) -> bool:
        """Note that a run failed; tell whether the variant is not to be used any more."""
        fused = self.by_name.get(name)
        if fused is None:
            return False
        fused.failures += 1
        if fused.failures < MOST_FAILURES:
            return False
        del self.by_name[name]
        self._settle()
        return True

    def spent(self) -> list[str]:
        """Return those that are of no use any more, each once."""
        spent = self._known - self.by_name.keys()
        self._known -= spent
        return sorted(spent)

    def succeeded(self, name: str) -> None:
        """Note that a run ended well."""
        fused = self.by_name.get(name)
        if fused is not None:
            fused.failures = 0

    def _settle(self) -> None:
        usable = [each for each in self.by_name.values() if len(each.members) > 1]
        self.by_name = {each.name: each for each in usable}
        usable.sort(key=lambda each: -each.slots)
        self.of = {
            model: tuple([each for each in usable if model in each.members])
            for fused in usable
            for model in fused.members
        }
