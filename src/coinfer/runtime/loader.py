"""Loader: the thread that loads and evicts places, one at a time, in the order that it is told.

It knows neither why nor what for. Making sessions is slow, and closing them may be: no worker and
nobody who decides waits for it. Whatever a backend raises, also to end the thread, is that load's
affair alone.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TypeAlias

from coinfer.core.commands import Evict, Load
from coinfer.core.events import Loaded, LoadFailed
from coinfer.runtime import clock
from coinfer.runtime.arguments import said
from coinfer.runtime.latch import Latch
from coinfer.runtime.memory_watch import MemoryWatch
from coinfer.runtime.model_store import ModelStore

__all__ = ["Loader", "LoaderUse"]

_Outcome: TypeAlias = Loaded | LoadFailed

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class LoaderUse:
    """What a loader did so far.

    Attributes:
        loads: Loads that ended well.
        failed: Those that failed.
        evictions: Evictions.
        load_s: Seconds of the loads that ended well.
    """

    loads: int = 0
    failed: int = 0
    evictions: int = 0
    load_s: float = 0.0


class Loader:
    """One thread; it starts with the first command, or to watch memory.

    Args:
        model_store: What it loads into.
        done: Gets how each load ended; called by the thread.
        failed: Gets each load that failed, and why; called by the thread.
        may_close: Tells whether sessions that are not used may be closed: a worker that was given
            up may still run on one.
        broken: Gets what nobody foresaw, which ended the thread.

    Attributes:
        use: What it did so far.
        watch: What it calls between commands; None: nothing.
    """

    def __init__(
        self,
        model_store: ModelStore,
        done: Callable[[_Outcome], None],
        failed: Callable[[Load, str], None],
        may_close: Callable[[], bool],
        broken: Callable[[BaseException], None],
    ) -> None:
        self._model_store = model_store
        self._done = done
        self._failed = failed
        self._may_close = may_close
        self._broken = broken
        self._commands: SimpleQueue[Load | Evict | None] = SimpleQueue()
        self._ended = Latch()
        self._thread: threading.Thread | None = None
        self.use = LoaderUse()
        self.watch: MemoryWatch | None = None

    def give(self, command: Load | Evict) -> None:
        """Hand over a command; returns at once. The owner of the core does it.

        Without a thread, because the system has none left, a load fails.
        """
        try:
            self.start()
        except RuntimeError as error:
            if isinstance(command, Load):
                self._done(self._failure(command, error))
            return
        self._commands.put(command)

    def start(self) -> None:
        """Start the thread, if it is not. The owner of the core does it.

        Raises:
            RuntimeError: the system has no thread left.
        """
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="coinfer-loader", daemon=True)
            thread.start()
            self._thread = thread

    def stop(self) -> None:
        """End the thread after the command that it performs; returns at once."""
        self._commands.put(None)

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for its end; False if it still works after so many seconds."""
        thread = self._thread
        return thread is None or thread is threading.current_thread() or self._ended.wait(timeout_s)

    def _run(self) -> None:
        try:
            while True:
                watch = self.watch
                wait_s = None if watch is None else watch.due_in_s()
                if watch is not None and not wait_s:
                    watch.look()
                    continue
                try:
                    command = self._commands.get(timeout=wait_s)
                except Empty:
                    continue
                if command is None:
                    return
                if isinstance(command, Load):
                    self._done(self._load(command))
                else:
                    self._evict(command)
        except BaseException as error:  # noqa: BLE001 - whatever it is, somebody waits for answers
            self._broken(error)
        finally:
            self._ended.set()

    def _evict(self, evict: Evict) -> None:
        close, watch = self._may_close(), self.watch
        if watch is not None:
            watch.forget_gone(self._model_store.span_ios)
        before = None if watch is None else watch.held(evict)
        forget = watch is not None and watch.forgets(evict)
        self.use.evictions += 1
        try:
            self._model_store.evict(
                evict.model, evict.span, evict.processors, close=close, forget=forget
            )
        except BaseException:  # noqa: BLE001 - a session is foreign code, and forgotten already
            _log.exception("a session of model %r could not be closed", evict.model)
            return
        if watch is not None and close:
            watch.note_eviction(evict, before, watch.held(evict))

    def _load(self, load: Load) -> _Outcome:
        started_s = clock.now()
        watch, forget = self.watch, False
        if watch is not None:
            watch.forget_gone(self._model_store.span_ios)
            watch.note_load(load)
            forget = watch.forgets_unused(load)
        try:
            self._model_store.load(load.variant, load.span, load.processors, forget=forget)
        except BaseException as error:  # noqa: BLE001 - a backend is foreign code
            return self._failure(load, error)
        seconds = clock.now() - started_s
        self.use.loads += 1
        self.use.load_s += seconds
        return Loaded(load.place, seconds)

    def _failure(self, load: Load, error: BaseException) -> LoadFailed:
        reason = " ".join(said(error).split())
        self.use.failed += 1
        self._failed(load, reason)
        return LoadFailed(load.place, reason)
