"""Stories: random but lawful sequences of dispatcher steps, and what really happened."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from hypothesis import strategies as st

from coinfer.core.commands import Abandon, Command, Execution, Reply, Run
from coinfer.core.events import (
    Arrived,
    Cancelled,
    Event,
    Failed,
    Finished,
    ProcessorLost,
    ProcessorRestored,
    TimerFired,
)
from coinfer.core.request import Outcome, Request
from coinfer.machine.processor import Processor
from coinfer.machine.span import Span
from coinfer.metrics.recorder import Recorder

MODELS = ("a", "b", "c")
NAMES = ("p", "q")
PROCESSORS = tuple(Processor(name=n, backend="null", units=frozenset({f"u-{n}"})) for n in NAMES)

Step = tuple[Event, Sequence[Command], float]


@dataclass
class Story:
    """A driver and dispatcher in one that does anything a real pair could do, at random."""

    rng: Random
    now: float = 0.0
    steps: list[Step] = field(default_factory=list)
    arrived: list[Request] = field(default_factory=list)
    answers: dict[int, tuple[Outcome, float]] = field(default_factory=dict)
    intervals: list[tuple[str, float, float]] = field(default_factory=list)
    waiting: list[Request] = field(default_factory=list)
    running: dict[str, Execution] = field(default_factory=dict)
    aside: set[str] = field(default_factory=set)
    forgotten: list[int] = field(default_factory=list)
    started: int = 0

    def play(self, count: int) -> Story:
        actions = (self.arrive, self.arrive, self.finish, self.finish, self.fail, self.cancel,
                   self.drop, self.lose, self.overrun, self.restore, self.come_back)  # fmt: skip
        for _ in range(count):
            self.now += self.rng.choice((0.0, 0.001, self.rng.random()))
            step = self.rng.choice(actions)()
            if step is not None:
                event, commands = step
                self.steps.append((event, [*commands, *self.starts()], self.now))
        return self

    def told_to(self, recorder: Recorder) -> Recorder:
        for event, commands, now in self.steps:
            recorder.observe(event, commands, now)
        return recorder

    def reply(self, request: Request, outcome: Outcome) -> list[Command]:
        if request.id in self.answers:
            return []
        self.answers[request.id] = (outcome, self.now)
        self.waiting = [other for other in self.waiting if other.id != request.id]
        return [Reply(request, outcome, "" if outcome is Outcome.COMPLETED else "a reason")]

    def starts(self) -> list[Command]:
        commands: list[Command] = []
        for name in NAMES:
            if name in self.running or name in self.aside or not self.waiting:
                continue
            model = self.waiting[0].model
            chosen = [r for r in self.waiting if r.model == model][: self.rng.randint(1, 3)]
            self.waiting = [r for r in self.waiting if r not in chosen]
            self.started += 1
            execution = Execution(
                self.started, model, Span(), name, tuple(chosen), self.now, self.rng.random()
            )
            self.running[name] = execution
            commands.append(Run(execution))
        return commands

    def stop_one(self) -> Execution | None:
        if not self.running:
            return None
        execution = self.running.pop(self.rng.choice(sorted(self.running)))
        self.intervals.append((execution.processor, execution.started_s, self.now))
        return execution

    def again_or(self, outcome: Outcome, execution: Execution) -> list[Command]:
        """Another span or a retry, or the answer."""
        if self.rng.random() < 0.3:
            self.waiting += [r for r in execution.requests if r.id not in self.answers]
            return []
        return [c for request in execution.requests for c in self.reply(request, outcome)]

    def arrive(self) -> tuple[Event, list[Command]]:
        due = max(0.0, self.now - self.rng.choice((0.0, 0.01)))
        request = Request(
            id=len(self.arrived) + 1,
            model=self.rng.choice(MODELS),
            arrival_s=due,
            deadline_s=self.rng.choice((math.inf, due + 0.2, due + 2.0)),
        )
        self.arrived.append(request)
        if self.rng.random() < 0.1:
            return Arrived(request), self.reply(request, Outcome.REJECTED)
        self.waiting.append(request)
        return Arrived(request), []

    def finish(self) -> tuple[Event, list[Command]] | None:
        execution = self.stop_one()
        if execution is None:
            return None
        event = Finished(execution.id, (self.now - execution.started_s) * 0.9)
        return event, self.again_or(Outcome.COMPLETED, execution)

    def fail(self) -> tuple[Event, list[Command]] | None:
        execution = self.stop_one()
        if execution is None:
            return None
        return Failed(execution.id, "raised"), self.again_or(Outcome.FAILED, execution)

    def cancel(self) -> tuple[Event, list[Command]] | None:
        alive = [r for r in self.arrived if r.id not in self.answers]
        if not alive:
            return None
        request = self.rng.choice(alive)
        return Cancelled(request.id), self.reply(request, Outcome.CANCELLED)

    def drop(self) -> tuple[Event, list[Command]] | None:
        if not self.waiting:
            return None
        return TimerFired(), self.reply(self.rng.choice(self.waiting), Outcome.DROPPED)

    def lose(self) -> tuple[Event, list[Command]] | None:
        execution = self.stop_one()
        if execution is None:
            return None
        self.aside.add(execution.processor)
        lost = ProcessorLost(execution.processor, "its worker died")
        return lost, self.again_or(Outcome.FAILED, execution)

    def overrun(self) -> tuple[Event, list[Command]] | None:
        execution = self.stop_one()
        if execution is None:
            return None
        self.aside.add(execution.processor)
        self.forgotten.append(execution.id)
        commands: list[Command] = [Abandon(execution, "hangs")]
        return TimerFired(), commands + self.again_or(Outcome.FAILED, execution)

    def restore(self) -> tuple[Event, list[Command]] | None:
        if not self.aside:
            return None
        return ProcessorRestored(self.aside.pop()), []

    def come_back(self) -> tuple[Event, list[Command]] | None:
        """An abandoned execution returns after all; nobody listens."""
        if not self.forgotten:
            return None
        return Finished(self.forgotten.pop(), 99.0), []


def _told(seed: int, count: int) -> Story:
    return Story(Random(seed)).play(count)


# By seed and not by Hypothesis's own random source, which would make each example very large.
stories = st.builds(_told, st.integers(0, 2**32 - 1), st.integers(0, 150))
