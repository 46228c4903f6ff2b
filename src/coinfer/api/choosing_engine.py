"""Choosing engine: performs a plan, and chooses its policy while it works if it is asked to.

Then it also loads models on other processors where the load has changed so much that these serve it
clearly better (`coinfer.planner.column_review`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING

from coinfer.backends.base import Backend
from coinfer.core.limits import Limits
from coinfer.core.policy import Policy
from coinfer.errors import ClosedError, CoinferError
from coinfer.experiments.auto_policy import AutoPolicy, auto_policy
from coinfer.graph.cut_model import CutModel
from coinfer.model import Model
from coinfer.plan.choice import Choice
from coinfer.plan.plan import Plan, PolicyChoice
from coinfer.runtime import engine
from coinfer.runtime.engine import Observer

if TYPE_CHECKING:
    from coinfer.api.policy_thread import PolicyThread
    from coinfer.experiments.policy_controller import Due, Tally, Verdict
    from coinfer.planner.column_review import ColumnAdvice, ColumnReview

__all__ = ["ChoosingEngine"]

_log = logging.getLogger(__name__)


class ChoosingEngine(engine.Engine):
    """As `coinfer.runtime.engine.Engine`, and `change_policy` takes `auto`, too.

    Arguments and errors are those of that engine. It begins with the policy of the plan.
    """

    _policy_thread: PolicyThread | None = None
    _follows: frozenset[str] = frozenset()
    """Models whose processors are chosen for the requests that come."""

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
            self._follows = frozenset()
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
        self._follows = frozenset(self._movable())
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

    def _watched_rates(self) -> Mapping[str, float]:
        """Compare rates with nothing while the processors are chosen for those that come."""
        rates = super()._watched_rates()
        return {name: rate for name, rate in rates.items() if name not in self._follows}

    def _movable(self) -> list[str]:
        """Return the models that can be loaded on other processors."""
        from coinfer.planner.column_review import movable

        if self._has_budget:
            return []
        names = movable(self.plan)
        return [name for name in names if self._model_store.source(name) is not None]

    def column_review(self, due: Due, margin: float) -> ColumnReview | None:
        """Return what is to be found out of the processors, for the policy thread."""
        from coinfer.planner.column_review import ColumnReview
        from coinfer.planner.passes.worth_loading import room_for

        plan, models = self.plan, self._movable()
        self._follows = frozenset(models)
        if not models:
            return None
        first = dict[Hashable, str]()
        keys = {
            p.name: (p.backend, self._backends[p.backend].sharing_key(p)) for p in plan.processors
        }
        return ColumnReview(
            plan=plan,
            requests=due.requests,
            models=models,
            sessions={name: first.setdefault(key, name) for name, key in keys.items()},
            room=room_for(plan.processors),
            margin=margin,
            limits=self._limits,
            lost=self._lost(),
        )

    def settle_columns(self, thread: PolicyThread, advice: ColumnAdvice) -> None:
        """Load models where a review has shown it to be best; for the policy thread.

        Raises:
            ClosedError: the engine has stopped.
        """
        plan = self.plan  # another thread may unload a model meanwhile
        threads = {p.name: p.threads for p in plan.processors}

        def growth(name: str) -> int:
            now, then = plan.models[name].original.spans, advice.columns[name][0]
            return sum(threads[at] for at in then) - sum(threads[at] for at in now)

        # Those first that take fewer threads than before: there is room for so many only.
        known = [name for name in advice.columns if name in plan.models]
        for name in sorted(known, key=growth):
            with self._loading:
                if self._policy_thread is not thread:
                    return  # somebody has named a policy meanwhile
                if self._has_moved(name, *advice.columns[name], advice.why):
                    rates = {**self.plan.rates, name: advice.rates.get(name, 0.0)}
                    rates = {name: rate for name, rate in rates.items() if rate}
                    self.plan = replace(self.plan, rates=rates)
        _log.info("processors: %s", advice.why)

    def _has_moved(
        self, name: str, processors: Sequence[str], why: Sequence[str], gain: str
    ) -> bool:
        """Move a model as advised; tell whether it has moved. If not, it is where it was."""
        from coinfer.planner.passes.worth_loading import room_for

        if name not in self.plan.models:
            return False  # it was unloaded meanwhile
        before = self.plan
        now = [*before.models[name].original.spans]
        stays = [each for each in processors if each in now]
        new = [p.threads for p in before.processors if p.name in {*processors} - {*now}]
        choice = Choice("auto", f"{gain}: {'; '.join(why)}")
        try:
            if stays and sum(n for n in new if n > 1) > room_for(before.processors).threads:
                self.move(name, stays)  # its own pools are in the way of those that it is to get
            self.move(name, processors, choice)
        except ClosedError:
            raise
        except CoinferError as error:
            reason = str(error)
        else:
            return True
        try:
            if self.plan is not before:
                self.move(name, now)
        except ClosedError:
            raise
        except CoinferError as error:
            reason = f"{reason}; nor back: {error}"
        left = self.plan.models[name].original.spans
        where = "stays where it is loaded" if {*left} == {*now} else f"is left on {', '.join(left)}"
        self.warnings.put(("columns", name), f"{name} {where}: {reason}")
        return False

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
