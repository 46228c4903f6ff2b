"""Apart: something is done in a thread of its own while the caller waits, and may be interrupted.

Signal handlers run in the main thread, and may raise there at any moment. So it does nothing that
such an exception would damage.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from coinfer.runtime.latch import Latch

__all__ = ["do_apart"]

_LOOK_S = 0.2


def _never() -> bool:
    return False


def do_apart(
    act: Callable[[], object],
    goes_on: Callable[[], bool],
    stop: Callable[[], object],
    name: str,
    is_stuck: Callable[[], bool] = _never,
) -> None:
    """Do something in a thread of its own; returns when it is done.

    Args:
        act: What is done.
        goes_on: Called at the beginning, a few times per second and at the end, in the calling
            thread; tells whether it may go on.
        stop: Has it end soon; called if it may not, or if the wait is interrupted.
        name: What the thread is called.
        is_stuck: Called now and then; tells whether the thread is left to itself, for it may never
            come back. Then another one does `act` again, which is to go on where that stopped.

    Raises:
        BaseException: what it raises, or `goes_on`, or a signal handler meanwhile.
        RuntimeError: the system has no thread left.

    >>> do_apart(lambda: print("done"), lambda: True, lambda: None, "example")
    done
    """
    doing = _Doing(act, name)
    try:
        doing.begin()
        while goes_on():
            if doing.done.is_set:
                break
            doing.wait(is_stuck)
        else:
            stop()
            doing.wait_for_end(is_stuck)
    except BaseException:
        stop()
        doing.wait_for_end(is_stuck)
        raise
    if doing.errors:
        raise doing.errors[0]


class _Doing:
    """What is done, by the thread that was the last to begin with it.

    Attributes:
        done: Whether that thread has done it.
        errors: What it raised.
    """

    def __init__(self, act: Callable[[], object], name: str) -> None:
        self._act, self._name = act, name
        self._thread: threading.Thread | None = None
        self.done, self.errors = Latch(), list[BaseException]()

    def begin(self) -> None:
        """Have a fresh thread do it.

        Raises:
            RuntimeError: the system has no thread left.
        """
        self.done, self.errors = Latch(), []
        act = partial(self._run, self.done, self.errors)
        self._thread = threading.Thread(target=act, name=self._name, daemon=True)
        self._thread.start()

    def wait(self, is_stuck: Callable[[], bool]) -> None:
        """Wait a little, and begin again if the thread is stuck."""
        if not self.done.wait(_LOOK_S) and is_stuck():
            self.begin()

    def wait_for_end(self, is_stuck: Callable[[], bool]) -> None:
        """Wait until it is done, if it was begun."""
        while self._thread is not None and self._thread.ident is not None:
            if self.done.is_set:
                return
            self.wait(is_stuck)

    def _run(self, done: Latch, errors: list[BaseException]) -> None:
        try:
            self._act()
        except BaseException as error:  # noqa: BLE001 - raised again in the calling thread
            errors.append(error)
        finally:
            done.set()
