"""Watch: those in the server that look on while the engine works, as one observer of its core."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from coinfer.core.commands import Command
from coinfer.core.events import Event
from coinfer.metrics.explanation import Explainer, Explanation
from coinfer.runtime import clock
from coinfer.runtime.engine import Engine
from coinfer.server.backlog import Backlog
from coinfer.server.statistics import Statistics

__all__ = ["Watch"]

_NOT_EXPLAINED = '{"outcome":"not explained: too many are at a time"}'
_MOST_ALTERNATIVES = 8
_MOST_EXPLAINED = 16
"""Requests that are looked after at a time: each costs something at every step of the core."""


class Watch:
    """Hands on what the core does: to the statistics, to the backlog, and to who explains.

    Attributes:
        statistics: Counts what became of requests.
        backlog: Knows what waits.
        tenants: Is told of each step, where tenants have weights; None: they have none.
    """

    def __init__(self) -> None:
        self.tenants: Callable[[Event, Sequence[Command]], None] | None = None
        self.statistics = Statistics()
        self.backlog = Backlog()
        self._explainers: tuple[Explainer, ...] = ()
        self._changing = threading.Lock()

    def observe(self, event: Event, commands: Sequence[Command], now: float) -> None:
        """Note a step of the core."""
        if commands:  # it looks at nothing else
            self.statistics.observe(event, commands, now)
        self.backlog.observe(event, commands, now)
        if self.tenants is not None:
            self.tenants(event, commands)
        if self._explainers:
            for explainer in self._explainers:
                explainer.observe(event, commands, now)

    def handed_over(self, execution_id: int, at_s: float) -> None:
        """Note that an execution is given to its processor's worker."""
        for explainer in self._explainers:
            explainer.handed_over(execution_id, at_s)

    def ended(self, execution_id: int, at_s: float, service_s: float | None) -> None:
        """Note that an execution ended."""
        for explainer in self._explainers:
            explainer.ended(execution_id, at_s, service_s)

    def answered(self, request_id: int, at_s: float) -> None:
        """Note that the caller gets the answer."""
        for explainer in self._explainers:
            explainer.answered(request_id, at_s)

    def explain(self, engine: Engine, due_s: float) -> Explainer | None:
        """Look after the request that is due at this very moment, until `forget`.

        Returns:
            Who does; None if there are too many already.
        """
        explainer = Explainer(lambda request: request.arrival_s == due_s)
        explainer.watch(engine.view)
        with self._changing:
            if len(self._explainers) >= _MOST_EXPLAINED:
                return None
            self._explainers = (*self._explainers, explainer)
            engine.attach(self, self)
        return explainer

    def explaining(
        self, engine: Engine, submit: Callable[..., Future[Any]]
    ) -> tuple[Callable[..., Future[Any]], Callable[[], str]]:
        """Have a request looked after from its submission to its answer; of an ensemble, one stage.

        Args:
            engine: Where it runs.
            submit: Submits it, given the moment from which its latency counts as `due_s`.

        Returns:
            What submits it, and what tells about it once it is answered.
        """
        found: list[Explainer | None] = []

        def explaining(due_s: float | None = None) -> Future[Any]:
            due_s = clock.now() if due_s is None else due_s
            explainer = self.explain(engine, due_s)
            found.append(explainer)
            if explainer is None:
                return submit(due_s=due_s)
            try:
                future = submit(due_s=due_s)
            except BaseException:
                self.forget(engine, explainer)
                raise
            future.add_done_callback(lambda _: self.forget(engine, explainer))
            return future

        def told() -> str:
            explainer = found[0] if found else None
            if found and explainer is None:
                return _NOT_EXPLAINED
            explanation = None if explainer is None else explainer.found
            return _explained(explanation, engine.plan.policy.text)

        return explaining, told

    def forget(self, engine: Engine, explainer: Explainer) -> None:
        """Do not look after a request any longer; again is fine."""
        with self._changing:
            self._explainers = tuple(each for each in self._explainers if each is not explainer)
            if not self._explainers:
                engine.attach(self)


def _explained(found: Explanation | None, policy: str) -> str:
    """Write an explanation, under the policy that decides now, as one line of JSON in ASCII."""
    if found is None:
        return json.dumps({"outcome": "not executed"})
    due_s = found.request.arrival_s
    said: dict[str, Any] = {
        "request": found.request.id,
        "outcome": None if found.outcome is None else found.outcome.value,
        "latency_ms": _ms(found.latency_s),
        "policy": policy,
        "executions": [
            {
                "at_ms": _ms(choice.at_s - due_s),
                "processor": choice.processor,
                "variant": choice.variant,
                **({"why_variant": choice.why_variant} if choice.why_variant else {}),
                "expected_ms": _ms(choice.expected_s),
                "took_ms": None if choice.took_s is None else _ms(choice.took_s),
                "together": choice.together,
                **({"failure": choice.failure} if choice.failure else {}),
                "alternatives": [
                    {"processor": each.processor, "finish_ms": _ms(each.finish_s)}
                    if not each.reason
                    else {"processor": each.processor, "not": each.reason}
                    for each in choice.alternatives[:_MOST_ALTERNATIVES]
                ],
            }
            for choice in found.choices
        ],
    }
    return json.dumps(said, separators=(",", ":"))


def _ms(seconds: float) -> float | None:
    return round(seconds * 1e3, 3) if seconds < float("inf") else None
