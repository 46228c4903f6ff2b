"""Engine memory: who watches what an engine holds, with a budget from the start or a later one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import partial

from coinfer.core.dispatcher import Dispatcher
from coinfer.core.events import MemoryGiven
from coinfer.core.place import Loadable
from coinfer.graph.cut_model import CutModel
from coinfer.machine.memories import HOST
from coinfer.model import Model
from coinfer.opening import Held, held_on_host, least_memory
from coinfer.plan.plan import Plan
from coinfer.runtime.event_loop import EventLoop
from coinfer.runtime.limit_watch import LimitWatch
from coinfer.runtime.memory_watch import MemoryWatch, Since, rest_beside
from coinfer.runtime.model_loader import ModelLoader
from coinfer.runtime.model_store import ModelStore

__all__ = ["EngineMemory"]


class EngineMemory:
    """Makes the watches of an engine's memory, which threads of the engine keep.

    It does not hold the engine: one that nobody else has must be collected.

    Args:
        core: Its core.
        event_loop: Its event loop.
        store: Its models.
        loader: Is told where later models are to be placed, once there is a budget.
        loading: Held while models come or go.
        plan: What is loaded now; None: the engine is gone.
        limit: Says how many bytes this process may use now; None: nobody limits it.
        models: Those that will be loaded.
    """

    def __init__(
        self,
        core: Dispatcher,
        event_loop: EventLoop,
        store: ModelStore,
        loader: ModelLoader,
        loading: threading.RLock,
        plan: Callable[[], Plan | None],
        limit: Callable[[], int | None] | None,
        models: Collection[Model | CutModel],
    ) -> None:
        self._core, self._event_loop, self._store = core, event_loop, store
        self._loader, self._loading, self._plan, self._limit = loader, loading, plan, limit
        wholes = [each if isinstance(each, Model) else each.model for each in models]
        held = {id(each.content): each.content.held_bytes for each in wholes}
        self._rest_bytes = rest_beside(sum(held.values()))
        self._late_watch: MemoryWatch | None = None
        self._known: tuple[Plan, int] | None = None

    def watch(self, given: MemoryGiven, plan: Plan) -> MemoryWatch:
        """Return what corrects sizes and lets a budget follow a lower limit, from the start on."""
        loop = self._event_loop
        watch = MemoryWatch(
            given,
            plan.processors,
            partial(least_memory, plan),
            self._limit,
            loop.post_beside,
            loop.warnings,
            self._store.device_uses,
            taken=self._taken_on_host,
            rest=self._rest_bytes,
        )
        loop.loader.watch = watch
        with suppress(RuntimeError):  # the system has no thread left: the first load tries again
            loop.call(loop.loader.start)
        return watch

    def limit_watch(self, limit: Callable[[], int | None]) -> LimitWatch:
        """Return what gives models a budget once the limit becomes too low for all of them."""
        return LimitWatch(limit, self._loaded_bytes, self._begin, self._rest_bytes)

    def note_change(self, plan: Plan) -> None:
        """Let a watch that began later than the engine know that models came or went."""
        if self._late_watch is not None:
            self._hold(self._late_watch, plan)

    def _taken_on_host(self) -> float:
        """Return the bytes that what is loaded is believed to take, where there is a budget."""
        return self._core.memories.get(HOST, (0.0, 0.0))[1]

    def _loaded_bytes(self) -> int:
        """Return the bytes of all that is loaded, where there is no budget."""
        plan = self._plan()
        if plan is None:
            return 0
        if self._known is None or self._known[0] is not plan:
            held = held_on_host(plan, self._store.can_load_again)
            self._known = plan, held.movable + held.others
        return self._known[1]

    def _begin(self, first: int | None, rest: int) -> bool:
        """Give models a budget; return False if they come or go, and it is not known what is there.

        What is loaded from now on counts, too.
        """
        if not self._loading.acquire(blocking=False):
            return False
        try:
            plan = self._plan()
            if self._loader.moving:
                return False  # Ctrl-C ended a move early: whoever loads or unloads next goes on
            if plan is not None:
                self._begin_to_evict(plan, first, rest)
        finally:
            self._loading.release()
        return True

    def _begin_to_evict(self, plan: Plan, first: int | None, rest: int) -> None:
        loop = self._event_loop
        held = held_on_host(plan, self._store.can_load_again)
        given = MemoryGiven({HOST: held.movable}, places=held.places)
        self._late_watch = MemoryWatch(
            given,
            plan.processors,
            lambda _memory: held.least,
            self._limit,
            loop.post_beside,
            loop.warnings,
            since=Since(first, held.others, rest),
            taken=self._taken_on_host,
        )
        self._loader.places = partial(self._places, self._late_watch)
        loop.post_beside(given)
        loop.loader.watch = self._late_watch
        loop.post(self._start_loader)

    def _start_loader(self, _answers: object) -> None:
        with suppress(RuntimeError):
            self._event_loop.loader.start()

    def _places(
        self, watch: MemoryWatch, added: Plan, name: str
    ) -> Mapping[str, tuple[Loadable, ...]]:
        """Return where what is about to be loaded is placed, by variant."""
        plan = self._plan()
        if plan is None:
            return {}
        places = self._hold(watch, plan.joined(added)).places
        return {each: places[each] for each in self._store.variants(name) if each in places}

    def _hold(self, watch: MemoryWatch, plan: Plan) -> Held:
        """Let a watch know what a plan has loaded."""
        held = held_on_host(plan, self._store.can_load_again)
        watch.hold(held.movable, held.others, held.least)
        return held
