"""Express processors: they run on top of others by priority, of threads or of streams.

Who runs there, and for how long that holds up what it overlays. Decides nothing; the rule that
starts something there is `coinfer.core.preemption`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from coinfer.core.commands import Execution
from coinfer.core.estimates import Estimates
from coinfer.machine.processor import LEFT_SHARE, Processor, twins
from coinfer.machine.profile import Profile

__all__ = ["ExpressProcessors"]


@dataclass(slots=True)
class _Delay:
    """How long an execution was overlaid.

    Attributes:
        over: Numbers of the express executions on top of it now.
        since_s: Since when there is one.
        done_s: Seconds before that.
    """

    over: set[int] = field(default_factory=set)
    since_s: float = 0.0
    done_s: float = 0.0

    def begin(self, over: int, now: float) -> None:
        if not self.over:
            self.since_s = now
        self.over.add(over)

    def end(self, over: int, now: float) -> None:
        self.over.remove(over)
        if not self.over:
            self.done_s += now - self.since_s


@dataclass(slots=True, eq=False)
class ExpressProcessors:
    """The express processors of a machine.

    Attributes:
        machine: All processors, ordinary ones included.
        processors: The express ones by name.
        twins: By name, the ordinary processor on which it stands.
        in_service: Those that work.
        estimates: Expected service times, at first those of the twins.
        running: Executions on express processors by id.
        users: By unit, own or overlaid, the express execution that occupies it.
        preempted_s: Seconds, by the estimates, of all that ran on top of something.

    Raises:
        ConfigurationError: an express processor stands on no ordinary one.
    """

    machine: Sequence[Processor]
    twins: Mapping[str, str] = field(init=False)
    processors: Mapping[str, Processor] = field(init=False)
    in_service: dict[str, Processor] = field(init=False)
    estimates: Estimates = field(default_factory=Estimates, init=False)
    running: dict[int, Execution] = field(default_factory=dict, init=False)
    users: dict[str, int] = field(default_factory=dict, init=False)
    preempted_s: float = field(default=0.0, init=False)
    _delays: dict[int, _Delay] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Find the express ones, and where they stand."""
        self.twins = twins(self.machine)
        self.processors = {p.name: p for p in self.machine if p.overlays}
        self.in_service = dict(self.processors)

    def add_model(self, model: str, profile: Profile) -> None:
        """Take over a model's times: those of the twins, whatever the profile says of others."""
        entries = {
            key._replace(processor=name): entry
            for name, twin in self.twins.items()
            for key, entry in profile
            if key.model == model and key.processor == twin
        }
        self.estimates.add(model, Profile(entries))

    @property
    def is_active(self) -> bool:
        """Whether something runs on an express processor, or was held up and still runs."""
        return bool(self.running or self._delays)

    def idle(self) -> list[str]:
        """Names of those that could start something now."""
        users = self.users
        return [
            name
            for name, processor in self.in_service.items()
            if processor.units.isdisjoint(users) and processor.overlays.isdisjoint(users)
        ]

    def began(self, execution: Execution, unit_user: Mapping[str, int]) -> None:
        """Note that an execution runs, on an express processor or on an ordinary one.

        Args:
            execution: What runs.
            unit_user: Which execution occupies a unit of an ordinary processor.
        """
        now, number = execution.started_s, execution.id
        processor = self.processors.get(execution.processor)
        if processor is None:
            for over in self._on_top_of(execution):
                self._delays.setdefault(number, _Delay()).begin(over, now)
            return
        self.running[number] = execution
        self.users.update(dict.fromkeys(processor.units | processor.overlays, number))
        below = {unit_user[unit] for unit in processor.overlays if unit in unit_user}
        if below:
            self.preempted_s += execution.expected_s
        for under in below:
            self._delays.setdefault(under, _Delay()).begin(number, now)

    def ended(self, execution: Execution, now: float) -> None:
        """Note that an execution no longer runs."""
        number = execution.id
        if self.running.pop(number, None) is None:
            self._delays.pop(number, None)
            return
        self.users = {unit: user for unit, user in self.users.items() if user != number}
        for delay in self._delays.values():
            if number in delay.over:
                delay.end(number, now)

    def held_up_s(self, execution_id: int, now: float) -> float:
        """Seconds for which an execution did not get on until now."""
        delay = self._delays.get(execution_id)
        if delay is None:
            return 0.0
        overlaid_s = delay.done_s + (now - delay.since_s if delay.over else 0.0)
        return overlaid_s * (1 - LEFT_SHARE)

    def delay_s(self, execution_id: int, now: float) -> float:
        """Seconds by which an execution will end later, by the estimates of what overlays it."""
        delay = self._delays.get(execution_id)
        if delay is None:
            return 0.0
        ends = [self.running[over].expected_end_s for over in delay.over]
        rest_s = max(0.0, max(ends, default=now) - now)
        return self.held_up_s(execution_id, now) + rest_s * (1 - LEFT_SHARE)

    def free_at(self, now: float) -> dict[str, float]:
        """Return when each overlaid unit should be left to its ordinary processors again."""
        return {
            unit: max(now, execution.expected_end_s)
            for execution in self.running.values()
            for unit in self.processors[execution.processor].overlays
        }

    def check(self, running: Mapping[int, Execution]) -> None:
        """Assert the invariants: one execution each, and who is overlaid is known to be delayed."""
        users: dict[str, int] = {}
        for number, execution in self.running.items():
            assert running.get(number) is execution, f"express execution {number} does not run"
            processor = self.processors[execution.processor]
            for unit in processor.units | processor.overlays:
                assert unit not in users, f"express unit {unit} is used twice"
                users[unit] = number
        assert users == self.users, f"express units: {users} != {self.users}"
        ordinary_ones = running.keys() - self.running.keys()
        assert self._delays.keys() <= ordinary_ones, "a delay of what does not run"
        for number in ordinary_ones:
            over = self._on_top_of(running[number])
            delay = self._delays.get(number)
            assert over == (set() if delay is None else delay.over), f"{number} is overlaid"

    def _on_top_of(self, execution: Execution) -> set[int]:
        """Return the express executions that hold up an ordinary one now."""
        (units,) = (p.units for p in self.machine if p.name == execution.processor)
        return {user for unit, user in self.users.items() if unit in units}
