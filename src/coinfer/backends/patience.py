"""Patience: how long a library may take before it counts as hanging. Knows no backend.

A thread that hangs in a library cannot be ended. It is a daemon: left behind with what it holds,
and no obstacle to the end of the process. Runs of requests have a limit of their own, in
`coinfer.core.watchdog`.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from typing import Protocol, Self, TypeVar

from coinfer.errors import BackendError, ConfigurationError

__all__ = [
    "PATIENCE_S",
    "VARIABLE",
    "HangError",
    "begun",
    "closing_unless_hung",
    "leave_behind",
    "patience_s",
    "patiently",
    "start",
]

R = TypeVar("R")

VARIABLE = "COINFER_PATIENCE_S"
"""Environment variable with another limit in seconds; `inf` waits for ever."""

PATIENCE_S = 300.0
"""Seconds that starting a library, loading a model or its first run may take."""

_LOOK_S = 0.2
"""On some systems a wait cannot be interrupted."""


_LEAVE_S = 10.0
"""How long the end of the interpreter waits for what has not returned, and does not hang."""

_GLANCE_S = 0.01

_threads: set[threading.Thread] = set()
"""Threads that call libraries and have not ended, but for those that hang."""


class HangError(BackendError):
    """A library did not return in time. What it was called for may still be in use: close nothing.

    A backend error, since whoever can do without that backend can do without it then, too.
    """

    @classmethod
    def of(cls, what: str, limit_s: float) -> Self:
        """Make the error: what was done, and how long was waited."""
        return cls(
            f"{what} has not returned for {limit_s:g} s: the library hangs, and is left behind; "
            f"{VARIABLE} sets how long is waited"
        )


class _Closable(Protocol):
    def close(self) -> None: ...


@contextmanager
def closing_unless_hung(session: _Closable) -> Iterator[None]:
    """Close something at the end, but not if a call in it hangs."""
    try:
        yield
    except HangError:
        raise
    except BaseException:
        session.close()
        raise
    session.close()


def patience_s() -> float:
    """Return the limit.

    Raises:
        ConfigurationError: the variable holds no positive number.
    """
    text = os.environ.get(VARIABLE, "")
    try:
        limit_s = float(text or PATIENCE_S)
    except ValueError:
        limit_s = 0.0
    if not limit_s > 0:
        raise ConfigurationError(f"{VARIABLE} must be positive seconds, or inf, got {text!r}")
    return limit_s


def patiently(
    call: Callable[[], R],
    what: str,
    *,
    late: Callable[[R], object] = lambda _: None,
    n_calls: int = 1,
) -> R:
    """Call a library in a daemon thread, and wait for it as long as it may take.

    Args:
        call: What may hang.
        what: What is done, for the message, e.g. `loading model 'a' on processor 'npu'`.
        late: Gets what the call returns after it was given up, e.g. to close it.
        n_calls: How often the library is called: each time it may take as long.

    Raises:
        HangError: it has not returned.
        BaseException: what the call raised.

    >>> patiently(lambda: 7, "counting")
    7
    """
    return begun(call, what, late=late, n_calls=n_calls)()


def begun(
    call: Callable[[], R],
    what: str,
    *,
    late: Callable[[R], object] = lambda _: None,
    n_calls: int = 1,
) -> Callable[[], R]:
    """Begin to call a library in a daemon thread; return what waits for it, as `patiently` does.

    The thread inherits cores and priority of this one. Ctrl-C waits for the call too, because a
    library does not bear to be left while the interpreter ends; a second one does not.

    >>> waits = [begun(lambda: 7, "counting"), begun(lambda: 8, "counting")]
    >>> [wait() for wait in waits]
    [7, 8]
    """
    limit_s = patience_s() * n_calls
    result: Future[R] = Future()

    def run() -> None:
        try:
            value = call()
        except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
            if result.set_running_or_notify_cancel():
                result.set_exception(error)
            return
        if result.set_running_or_notify_cancel():
            result.set_result(value)
        else:
            late(value)

    thread = threading.Thread(target=run, name="coinfer-library", daemon=True)
    start(thread)
    until_s = time.monotonic() + limit_s

    def ended() -> R:
        try:
            _wait(result, until_s)
        except KeyboardInterrupt:
            _wait(result, until_s)
            raise
        if result.cancel():
            leave_behind(thread)
            raise HangError.of(what, limit_s)
        return result.result()

    return ended


def start(thread: threading.Thread) -> None:
    """Start a daemon that calls a library, for which the end of the interpreter waits a while.

    Not only for what it returns: a daemon that is still closing sessions when the interpreter is
    gone takes the process down with it.
    """
    _threads.difference_update([other for other in list(_threads) if not other.is_alive()])
    _threads.add(thread)  # before, because Ctrl-C may come while it starts
    thread.start()


def leave_behind(thread: threading.Thread) -> None:
    """Do not wait for one that hangs."""
    _threads.discard(thread)


def _let_return() -> None:
    """Wait a while for what is called still: of several, Ctrl-C waits for one only."""
    until_s = time.monotonic() + _LEAVE_S
    with suppress(KeyboardInterrupt):
        while any(thread.is_alive() for thread in _threads) and time.monotonic() < until_s:
            time.sleep(_GLANCE_S)


atexit.register(_let_return)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.clear)  # the child has none of the threads


def _wait(result: Future[R], until_s: float) -> None:
    while (left_s := until_s - time.monotonic()) > 0:
        if wait([result], min(left_s, _LOOK_S)).done:
            return
