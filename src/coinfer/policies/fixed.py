"""Fixed mapping: each model waits for the processor that the user gave it.

Rule (Band, MobiSys 2022, "fixed"): each model has its processor, given by the user; in the order of
arrival on each processor. A request waits for its processor even while others are free. Only if its
processor failed it, is out of service, or cannot run the next units of a model that is cut, it goes
to the fastest that is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coinfer.core.lane import Lane
from coinfer.core.view import View
from coinfer.errors import ConfigurationError, UnknownNameError
from coinfer.policies.assigned import Assigned

__all__ = ["Fixed"]


@dataclass(slots=True, kw_only=True)
class Fixed(Assigned):
    """Serve every model on its own processor only.

    Attributes:
        assignment: Processor by model, for every model.
    """

    assignment: Mapping[str, str]

    def processor_of(self, view: View, lane: Lane) -> str:
        """Return the processor of the lane's model, or the fastest left if that is of no use."""
        name = self.assignment.get(lane.model)
        if name is None:
            where = "model in the assignment of policy 'fixed'"
            raise UnknownNameError.of(where, lane.model, self.assignment)
        if view.can_run(lane, name):
            return name
        if name not in view.all_processors:
            where = "processor in the assignment of policy 'fixed'"
            raise UnknownNameError.of(where, name, view.all_processors)
        if not view.runs_some_of(lane.model, name):
            raise ConfigurationError(f"policy 'fixed': {name!r} cannot run model {lane.model!r}")
        return view.fastest(lane)
