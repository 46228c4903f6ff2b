"""Choosing engine: performs a plan, and chooses its policy while it works if it is asked to."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from coinfer.backends.base import Backend
from coinfer.core.limits import Limits
from coinfer.core.policy import Policy
from coinfer.experiments.auto_policy import AutoPolicy, auto_policy
from coinfer.graph.cut_model import CutModel
from coinfer.model import Model
from coinfer.plan.plan import Plan, PolicyChoice
from coinfer.runtime import engine
from coinfer.runtime.engine import Observer

if TYPE_CHECKING:
    from coinfer.api.policy_thread import PolicyThread
    from coinfer.experiments.policy_controller import Tally, Verdict

__all__ = ["ChoosingEngine"]

_log = logging.getLogger(__name__)


class ChoosingEngine(engine.Engine):
    """As `coinfer.runtime.engine.Engine`, and `change_policy` takes `auto`, too.

    Arguments and errors are those of that engine. It begins with the policy of the plan.
    """

    _policy_thread: PolicyThread | None = None

    def __init__(
        self,
        plan: Plan,
        models: Mapping[str, Model | CutModel],
        *,
        policy: Policy | None = None,
        limits: Limits = Limits(),
        backends: Mapping[str, Backend] | None = None,
        observer: Observer | None = None,
        spinning: AbstractContextManager[str] | None = None,
        memory_limit: Callable[[], int | None] | None = None,
    ) -> None:
        self._limits = limits
        super().__init__(
            plan,
            models,
            policy=policy,
            limits=limits,
            backends=backends,
            observer=observer,
            spinning=spinning,
            memory_limit=memory_limit,
        )

    @property
    def policy(self) -> PolicyChoice:
        """The policy that decides now."""
        return self.plan.policy

    @property
    def policy_why(self) -> str:
        """Why it does, if it was chosen by planning or by `auto`; empty if it was given."""
        return "; ".join(choice.what for choice in self.plan.policy_why)

    def change_policy(self, policy: str | Policy | AutoPolicy, **options: object) -> None:
        """Let another policy decide from now on; nothing is lost.

        As of `coinfer.runtime.engine.Engine`, and `auto` or an `AutoPolicy` may be given: then the
        engine chooses from now on. Any other policy ends that.
        """
        auto = auto_policy(policy, options)
        self._event_loop.check_may_wait("change_policy")
        self._check_process()
        with self._loading:
            if auto is None:
                super().change_policy(policy, **options)  # type: ignore[arg-type]
            thread, self._policy_thread = self._policy_thread, None
            if thread is not None:
                self.note_requests(None)
                thread.leave()
            if auto is not None:
                self._check_open()
                self._choose_policy(auto)

    def stop(self, *, drain: bool = True, timeout_s: float | None = None) -> None:
        """Take no more requests, answer those there are, end the threads. Again is fine.

        As of `coinfer.runtime.engine.Engine`.
        """
        thread = self._policy_thread
        if thread is not None:
            thread.leave()
        super().stop(drain=drain, timeout_s=timeout_s)
        if thread is not None:
            thread.wait_until_left()

    def _choose_policy(self, auto: AutoPolicy) -> None:
        """Choose the policy from now on."""
        from coinfer.api.policy_thread import PolicyThread  # what simulates is imported only here

        self._policy_thread = thread = PolicyThread(self, auto, self._limits)
        self.note_requests(thread.controller.seen.note)
        try:
            thread.start()
        except RuntimeError as error:
            self.warnings.append(f"there is no thread to review the policy, which stays: {error}")

    def tallies(self) -> dict[str, Tally]:
        """Return how many requests were answered since the start, for the policy thread."""
        from coinfer.experiments.policy_controller import Tally

        return {
            name: Tally(each.completed - each.late, each.completed + sum(each.others.values()))
            for name, each in list(self._event_loop.counts.items())
        }

    def settle(self, thread: PolicyThread, verdict: Verdict) -> None:
        """Do what a review has shown to be best; for the policy thread.

        Raises:
            ClosedError: the engine has stopped.
        """
        policy, why = verdict
        with self._loading:
            if self._policy_thread is not thread:
                return  # somebody has named a policy meanwhile
            if policy != self.plan.policy:
                super().change_policy(policy.name, **policy.options)
            self.plan = self.plan.with_policy(policy, why)
        _log.info("%s", why.what)
