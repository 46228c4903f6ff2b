"""Swaps: which model a processor holds that can hold only one, and what another one costs first.

Known to the state for what was started; a copy follows what a policy only has in mind.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["Swaps"]


class Swaps:
    """Processors that change their model, as far as that takes time.

    The model that runs first on a processor costs nothing: it may be there from the start.

    Attributes:
        costs: By processor and model, the seconds until the model is there; empty if no change of
            a model takes time anywhere.

    >>> swaps = Swaps()
    >>> swaps.add("a", {"npu": 0.4})
    >>> swaps.add("b", {"npu": 0.5})
    >>> swaps.hold("npu", "a")
    >>> swaps.cost_s("npu", "a"), swaps.cost_s("npu", "b"), swaps.cost_s("cpu", "b")
    (0.0, 0.5, 0.0)
    """

    __slots__ = ("_held", "costs")

    def __init__(self) -> None:
        self.costs: dict[str, dict[str, float]] = {}
        self._held: dict[str, str] = {}

    def add(self, model: str, seconds: Mapping[str, float]) -> None:
        """Take in what a model costs by processor; what was known of it is forgotten."""
        self.forget(model)
        for processor, swap_s in seconds.items():
            if swap_s > 0:
                self.costs.setdefault(processor, {})[model] = swap_s

    def forget(self, model: str) -> None:
        """Remove every trace of a model."""
        for row in self.costs.values():
            row.pop(model, None)
        self.costs = {processor: row for processor, row in self.costs.items() if row}
        held = self._held.items()
        self._held = {name: of for name, of in held if of != model and name in self.costs}

    def hold(self, processor: str, model: str) -> None:
        """Note that a processor runs a model."""
        if processor in self.costs:
            self._held[processor] = model

    def cost_s(self, processor: str, model: str) -> float:
        """Return the seconds until a model is there, if a processor ran it next."""
        held = self._held.get(processor)
        if held is None or held == model:
            return 0.0
        return self.costs[processor].get(model, 0.0)

    def costs_of(self, model: str) -> dict[str, float]:
        """Return the seconds until a model is there by processor, where that takes any."""
        return {name: swap_s for name in self.costs if (swap_s := self.cost_s(name, model))}

    def added_to(self, seconds: Mapping[str, float], model: str) -> Mapping[str, float]:
        """Return seconds by processor with what is needed until the model is there."""
        return {name: each + self.cost_s(name, model) for name, each in seconds.items()}

    def copy(self) -> Swaps:
        """Return a copy that holds the same now."""
        other = Swaps()
        other.costs = self.costs
        other._held = dict(self._held)
        return other
