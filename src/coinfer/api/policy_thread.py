"""Policy thread: lets an engine's policy be reviewed now and then while it works.

And, where there are widths to choose from, on which processors its models had better be loaded:
that first, for the policy is chosen for what is loaded.

It sleeps, and waits for the process that simulates: it is of normal priority, since a lowered
thread could be kept from its core while it holds the interpreter's lock, and everybody waited for
it. The process is of the lowest.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Mapping
from subprocess import Popen
from typing import Protocol

from coinfer.core.limits import Limits
from coinfer.errors import ClosedError, CoinferError
from coinfer.experiments.auto_policy import AutoPolicy
from coinfer.experiments.policy_controller import Due, PolicyController, Tally, Verdict
from coinfer.experiments.policy_review import Advice, Review
from coinfer.experiments.review_child import reviewed
from coinfer.plan.plan import Plan
from coinfer.planner.column_child import columns_reviewed
from coinfer.planner.column_review import ColumnAdvice, ColumnReview
from coinfer.runtime import clock
from coinfer.runtime.engine_warnings import EngineWarnings
from coinfer.runtime.exit import leave_at_exit
from coinfer.runtime.latch import Latch

__all__ = ["Choose", "ChooseColumns", "PolicyThread", "Reviewed"]

_log = logging.getLogger(__name__)

_LIMIT_S = 600.0
"""Seconds that a review may take. It needs some five on a core of its own, and where all cores are
busy a process of the lowest niceness gets a twentieth of one, or less."""

_JOIN_S = 5.0
"""A model that another thread loads may keep it from changing the policy for longer."""

Choose = Callable[[Review, float, Callable[["Popen[bytes]"], None]], Advice]
"""Finds the best policy, within some seconds; tells the process in which it does."""

ChooseColumns = Callable[[ColumnReview, float, Callable[["Popen[bytes]"], None]], ColumnAdvice]
"""Finds the best processors, likewise."""


class Reviewed(Protocol):
    """An engine whose policy may change.

    Attributes:
        plan: What it performs; its policy decides.
        warnings: What its users must know.
    """

    plan: Plan
    warnings: EngineWarnings

    def tallies(self) -> Mapping[str, Tally]:
        """Return what was answered since the start, by model."""

    def settle(self, thread: PolicyThread, verdict: Verdict) -> None:
        """Do what a review has shown to be best."""

    def column_review(self, due: Due, margin: float) -> ColumnReview | None:
        """Return what is to be found out of its processors; None: there is nothing to choose."""

    def settle_columns(self, thread: PolicyThread, advice: ColumnAdvice) -> None:
        """Load models where a review has shown it to be best, and nowhere else."""


class PolicyThread:
    """A thread that reviews the policy of an engine until that stops or is dropped.

    Args:
        engine: It is not kept alive.
        auto: How often, and for what gain.
        limits: What the engine's core enforces.
        choose: Finds the best policy.
        choose_columns: Finds the best processors.

    Attributes:
        controller: Is told of each request; says when the policy is reviewed, and what follows.
    """

    def __init__(
        self,
        engine: Reviewed,
        auto: AutoPolicy,
        limits: Limits,
        choose: Choose = reviewed,
        choose_columns: ChooseColumns = columns_reviewed,
    ) -> None:
        self.controller = PolicyController(auto, clock.now())
        self._limits = limits
        self._engine = weakref.ref(engine)
        self._choose = choose
        self._choose_columns = choose_columns
        self._closed = Latch()
        self._process: Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="coinfer-policy", daemon=True)
        weakref.finalize(engine, self.leave).atexit = False
        leave_at_exit(self)

    def start(self) -> None:
        """Start the thread.

        Raises:
            RuntimeError: the system has no thread left.
        """
        self._thread.start()

    def leave(self) -> None:
        """Review nothing more; returns at once."""
        self._closed.set()
        process = self._process
        if process is not None:
            process.kill()

    def wait_until_left(self, timeout_s: float = _JOIN_S) -> None:
        """Wait for the end of the thread, unless it is the calling one."""
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def forsake(self) -> None:
        """In the child of a fork: the thread is not there, and its process is another's."""
        self._closed.is_set = True
        self._process = None

    def _run(self) -> None:
        while not self._closed.wait(self.controller.due_in_s(clock.now())):
            if not self._look():
                return

    def _look(self) -> bool:
        """Review the policy if that is due; return False if the engine is not there any more.

        A method of its own: while the thread sleeps, and while others simulate, nothing of it may
        keep the engine alive.
        """
        engine = self._engine()
        if engine is None:
            return False
        due = self.controller.look(clock.now(), engine.tallies(), engine.plan.policy)
        if due is None:
            return True
        if isinstance(due, Verdict):
            return self._settled(engine, due)
        columns = engine.column_review(due, self.controller.settings.margin)
        if columns is not None:
            del engine
            if not self._look_at_columns(columns):
                return False
            engine = self._engine()
            if engine is None:
                return False
        asked, warnings = self._asked(engine.plan, due), engine.warnings
        del engine
        present = asked.plan.policy
        try:
            advice = self._choose(asked, _LIMIT_S, self._note_started)
        except CoinferError as error:
            if not self._closed.is_set:
                text = f"the policy could not be reviewed and stays {present.text}: {error}"
                warnings.put("policy review", text)
            return True
        finally:
            self._process = None
        engine = self._engine()
        if engine is None or self._closed.is_set:
            return False
        return self._settled(engine, self.controller.judge(due, present, advice))

    def _look_at_columns(self, asked: ColumnReview) -> bool:
        """Review on which processors models are loaded; return False if the engine is gone."""
        reason, advice = "", None
        try:
            advice = self._choose_columns(asked, _LIMIT_S, self._note_started)
        except CoinferError as error:
            reason = str(error)
        finally:
            self._process = None
        engine = self._engine()
        if engine is None or self._closed.is_set:
            return False
        if advice is None:
            text = f"on which processors models are loaded could not be reviewed: {reason}"
            engine.warnings.put("column review", text)
            return True
        try:
            engine.settle_columns(self, advice)
        except ClosedError:
            return False
        return True

    def _settled(self, engine: Reviewed, verdict: Verdict) -> bool:
        try:
            engine.settle(self, verdict)
        except ClosedError:
            return False
        return True

    def _asked(self, plan: Plan, due: Due) -> Review:
        budget = self.controller.settings.budget
        return Review(plan=plan, requests=due.requests, limits=self._limits, budget=budget)

    def _note_started(self, process: Popen[bytes]) -> None:
        self._process = process
        if self._closed.is_set:  # at this moment
            process.kill()
