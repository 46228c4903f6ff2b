"""Apart: something is done in a thread of its own while the caller waits, and may be interrupted.

Signal handlers run in the main thread, and may raise there at any moment. So it does nothing that
such an exception would damage.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from coinfer.runtime.latch import Latch

__all__ = ["do_apart"]

_LOOK_S = 0.2


def do_apart(
    act: Callable[[], object], goes_on: Callable[[], bool], stop: Callable[[], object], name: str
) -> None:
    """Do something in a thread of its own; returns when it is done.

    Args:
        act: What is done.
        goes_on: Called at the beginning, a few times per second and at the end, in the calling
            thread; tells whether it may go on.
        stop: Has it end soon; called if it may not, or if the wait is interrupted.
        name: What the thread is called.

    Raises:
        BaseException: what it raises, or `goes_on`, or a signal handler meanwhile.
        RuntimeError: the system has no thread left.

    >>> do_apart(lambda: print("done"), lambda: True, lambda: None, "example")
    done
    """
    done, errors = Latch(), list[BaseException]()

    def run() -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001 - raised again in the calling thread
            errors.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=run, name=name, daemon=True)
    try:
        thread.start()
        while goes_on():
            if done.is_set:
                break
            done.wait(_LOOK_S)
        else:
            stop()
            done.wait()
    except BaseException:
        stop()
        if thread.ident is not None:
            done.wait()
        raise
    if errors:
        raise errors[0]
