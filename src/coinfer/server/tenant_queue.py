"""TenantQueue: holds requests back while the engine has enough, so that tenants get their shares.

The engine and its policy see a request when it is released. Until then its deadline counts as in
the engine, and whoever goes first among the requests of one tenant is decided by priority, then
deadline, then order of arrival. Among tenants it is decided by `FairShares`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

from coinfer.core.commands import Command, Reply
from coinfer.core.events import Event
from coinfer.errors import ClosedError, RejectedError
from coinfer.machine.processor import Processor
from coinfer.runtime import clock
from coinfer.server.fair_shares import FairShares
from coinfer.server.held_future import HeldFuture
from coinfer.server.lazy_heap import LazyHeap
from coinfer.server.released_work import ReleasedWork
from coinfer.server.tenant_request import TenantRequest

__all__ = ["TenantCounts", "TenantQueue"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantCounts:
    """What became of the requests of a tenant.

    Attributes:
        tenant: Its name.
        weight: Its weight.
        requests: Inferences that were taken.
        refused: Inferences that were not, because too many waited.
        seconds: What its answered requests took of processors.
        waiting: Inferences that are held back now.
    """

    tenant: str
    weight: float
    requests: int
    refused: int
    seconds: float
    waiting: int


class TenantQueue:
    """Releases the requests of tenants to an engine. Any thread may call it.

    Args:
        weights: By tenant; others have 1.
        processors: Those of the engine.
        most_waiting: Requests that may wait, in the engine and before it; then a tenant that has
            its share of them is refused more. None: any number.
        now: The engine's clock.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        processors: Iterable[Processor],
        most_waiting: int | None = None,
        now: Callable[[], float] = clock.now,
    ) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._now = now
        self._most = math.inf if most_waiting is None else most_waiting
        self._work = ReleasedWork(processors, self._lock, most_waiting)
        self._shares = FairShares(weights, self._work.cost_s)
        self._late: LazyHeap[TenantRequest] = LazyHeap(lambda request: request.is_held)
        self._numbers = count(1)
        self._counts: dict[str, list[float]] = {name: [0, 0, 0.0] for name in weights}
        self._closing = ""
        self._is_woken = False
        self._thread: threading.Thread | None = None

    @property
    def n_held(self) -> int:
        """Requests that are held back now."""
        return self._shares.n_held

    def start(self) -> None:
        """Have a thread release what is held; without it, those do by whom requests are answered.

        It also releases what is to be dropped, or may start, though nothing is answered.
        """
        self._thread = threading.Thread(target=self._run, name="coinfer-tenants", daemon=True)
        self._thread.start()

    def close(self, reason: str) -> None:
        """Answer what is held with `ClosedError`, and end the thread. Again is fine."""
        while True:
            with self._lock:
                self._closing = self._closing or reason
                self._changed.notify_all()
                request = self._shares.take(lambda _model: True)
                if request is None:
                    break
                self._not_late(request)
            request.left()
            assert request.future is not None  # it was held
            request.future.set_exception(ClosedError(self._closing))
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def submit(
        self,
        tenant: str,
        model: str,
        begin: Callable[[float], Future[dict[str, Any]]],
        *,
        due_s: float | None = None,
        deadline_s: float | None = None,
        priority: int = 0,
        is_dropped: bool = False,
        left: Callable[[], None] = lambda: None,
    ) -> Future[dict[str, Any]]:
        """Hand a request to the engine, now or when it is the tenant's turn.

        Args:
            tenant: Whose request.
            model: The engine's name of what is asked for.
            begin: Hands it to the engine, given the moment from which latency and deadline count.
            due_s: That moment, in the engine's time; None: now.
            deadline_s: Seconds from then by which the answer is wanted; None: no deadline.
            priority: Larger is more urgent, among the tenant's requests.
            is_dropped: Whether it is dropped when its deadline passes before it starts.
            left: Called once, when it is not held back any longer, or was not at all; also if
                this raises.

        Returns:
            The engine's future, or one that is answered as that will be.

        Raises:
            RejectedError: too much waits, and enough of it is the tenant's.
            ClosedError: the queue is closed.
            CoinferError: what `begin` raises, if the request goes at once.
        """
        due_s = self._now() if due_s is None else due_s
        before_s = math.inf if deadline_s is None else due_s + deadline_s
        request = TenantRequest(
            tenant,
            model,
            next(self._numbers),
            priority=priority,
            due_s=due_s,
            until_s=before_s if is_dropped else math.inf,
            before_s=before_s,
            begin=begin,
            left=left,
        )
        try:
            with self._lock:
                self._take(request)
        except BaseException:
            left()
            raise
        future = request.future
        if future is None:
            return self._begun(request)
        self.release()
        return future

    def release(self) -> None:
        """Hand to the engine what may go now. Never while the core handles an event."""
        self._release(self._next)

    def hasten(self, model: str) -> None:
        """Hand to the engine what is held of a model, out of turn, until too much waits there."""
        self._release(partial(self._next_to, model))

    def forget(self, model: str) -> None:
        """Forget what was learned of a model: it is unloaded."""
        with self._lock:
            self._work.forget(model)

    def _release(self, take: Callable[[], TenantRequest | None]) -> None:
        while True:
            with self._lock:
                request = take()
            if request is None:
                return
            future, request.future = request.future, None
            assert future is not None  # it was held
            try:
                future.follow(self._begun(request))
            except Exception as error:  # noqa: BLE001 - whatever it is, its caller is told
                future.set_exception(error)

    def observe(self, event: Event, commands: Sequence[Command]) -> None:
        """Note a step of the core."""
        has_begun = self._work.observe(event, commands)
        if has_begun and self._shares.n_held and not any(type(each) is Reply for each in commands):
            # Nothing is answered with this step, which would release the next.
            self._wake()

    def wait_s(self, tenant: str, model: str, priority: int) -> float:
        """Return how long what is held would keep a request that came now from the engine.

        Args:
            tenant: Whose request.
            model: The engine's name of what is asked for.
            priority: Of the request.
        """
        if not self._shares.n_held:
            return 0.0
        with self._lock:
            if not self._shares.holds(model) and self._work.can_start(model):
                return 0.0
            cost_s = self._work.cost_s(model)
            is_rival = partial(self._work.are_rivals, model)
            return self._shares.ahead_s(tenant, priority, cost_s, is_rival) / self._work.parallel

    def held_by_model(self) -> Mapping[str, int]:
        """Return how many requests are held back, by the engine's name of a model."""
        with self._lock:
            return self._shares.held_by_model()

    def counts(self) -> list[TenantCounts]:
        """Return what became of the requests of each tenant."""
        with self._lock:
            return [
                TenantCounts(
                    tenant=name,
                    weight=self._shares.weight_of(name),
                    requests=int(requests),
                    refused=int(refused),
                    seconds=seconds,
                    waiting=self._shares.held_of(name),
                )
                for name, (requests, refused, seconds) in self._counts.items()
            ]

    def _take(self, request: TenantRequest) -> None:
        """Hold a request back, or note that it goes at once.

        Raises:
            CapacityError: it is refused.
        """
        if self._closing:
            raise ClosedError(self._closing)
        self._admit(request.tenant)
        if self._shares.n_held or not self._work.has_room():
            self._hold(request)
        else:
            self._shares.begin(request)
            self._work.add(request)

    def _admit(self, tenant: str) -> None:
        """Count a request.

        Raises:
            RejectedError: too much waits, and enough of it is the tenant's.
        """
        counts = self._counts.setdefault(tenant, [0, 0, 0.0])
        waiting = self._shares.n_held + self._work.n_waiting
        if waiting >= self._most:
            own = max(1.0, self._most * self._shares.share_of(tenant))
            if self._shares.held_of(tenant) >= own:
                counts[1] += 1
                raise RejectedError(
                    f"{waiting} requests wait already, the admission limit, and tenant "
                    f"{tenant!r} has its share of them"
                )
        counts[0] += 1

    def _hold(self, request: TenantRequest) -> None:
        request.future = HeldFuture(partial(self._withdraw, request))
        self._shares.add(request)
        if request.until_s < math.inf:
            self._late.push((request.until_s, request.number), request)
            if self._late.first()[1] is request:
                self._changed.notify_all()

    def _next(self) -> TenantRequest | None:
        """Take what goes next: first what is to be dropped, which the engine does."""
        if self._closing or not self._shares.n_held:
            return None
        if not self._late.is_empty and self._late.first()[0][0] <= self._now():
            request = self._late.first()[1]
            self._shares.remove(request)
            request.is_beside = True
        else:
            may_go = None if self._work.has_room() else self._work.can_start
            found = self._shares.take(may_go)
            if found is None:
                return None
            request = found
        self._not_late(request)
        self._work.add(request)
        return request

    def _next_to(self, model: str) -> TenantRequest | None:
        if self._closing or self._work.is_full:
            return None
        request = self._shares.take_to(model)
        if request is not None:
            self._not_late(request)
            self._work.add(request)
        return request

    def _not_late(self, request: TenantRequest) -> None:
        """Note that a request is not held any longer, so that what is to be dropped forgets it."""
        if request.until_s < math.inf:
            self._late.n_gone += 1

    def _begun(self, request: TenantRequest) -> Future[dict[str, Any]]:
        """Hand a request to the engine.

        Raises:
            CoinferError: the engine does not take it.
        """
        begin, request.begin = request.begin, None  # it holds the inputs
        assert begin is not None
        try:
            future = begin(request.due_s)
        except BaseException:
            self._ended(request, is_completed=False)
            raise
        finally:
            request.left()
        future.add_done_callback(partial(self._answered, request))
        return future

    def _answered(self, request: TenantRequest, future: Future[dict[str, Any]]) -> None:
        is_completed = not future.cancelled() and future.exception() is None
        self._ended(request, is_completed=is_completed)
        if not self._shares.n_held:
            return
        if self._thread is None:
            self.release()
        else:  # the present thread is a processor's, which has its next run to begin
            self._wake()

    def _ended(self, request: TenantRequest, *, is_completed: bool) -> None:
        with self._lock:
            self._work.end(request, is_completed=is_completed)
            self._shares.settle(request)
            self._counts[request.tenant][2] += request.spent_s
            if not self._shares.n_held and not self._work.n_unanswered:
                self._shares.rest()

    def _wake(self) -> None:
        """Have the queue's thread release what may go; many wakes are one."""
        if self._is_woken:
            return
        with self._lock:
            self._is_woken = True
            self._changed.notify_all()

    def _withdraw(self, request: TenantRequest) -> bool:
        """Hold a request no longer that nobody wants; False: it is not held."""
        with self._lock:
            if not request.is_held:
                return False
            self._shares.remove(request)
            self._not_late(request)
            request.begin = request.future = None
        request.left()
        return True

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closing and not self._is_woken:
                    left_s = None
                    if not self._late.is_empty:
                        left_s = self._late.first()[0][0] - self._now()
                        if left_s <= 0:
                            break
                        left_s = min(left_s, threading.TIMEOUT_MAX)
                    self._changed.wait(left_s)
                if self._closing:
                    return
                self._is_woken = False
            self.release()
