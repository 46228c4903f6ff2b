"""`python -m coinfer`, and the program `coinfer`: it starts so that Ctrl-C always ends it neatly.

Importing takes half a second. A KeyboardInterrupt in it may come up anywhere, also in libraries
written in C, which turn it into other errors or lose it. Nothing is done yet then, and so the
process ends at once. The same holds once all is done, while the interpreter ends.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["main"]


class _CtrlC:
    """Handles SIGINT for the whole life of the process.

    Attributes:
        works: Whether a verb is at work: then it gets a KeyboardInterrupt.
        came: Whether one was raised.
    """

    def __init__(self) -> None:
        self.works = False
        self.came = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if not self.works:
            _leave()
        self.came = True
        signal.default_int_handler(number, frame)

    def was_lost(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Note an error that came up in a destructor: nobody could catch it there."""
        if unraisable.exc_type is KeyboardInterrupt:
            _leave()
        sys.__unraisablehook__(unraisable)


def main() -> None:
    """Run the program and exit."""
    ctrl_c = _CtrlC()
    # One that is ignored stays so: a shell without job control starts like that what it does not
    # wait for.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, ctrl_c)
        sys.unraisablehook = ctrl_c.was_lost
    from coinfer.cli.app import main as run

    try:
        try:
            ctrl_c.works = True
            run(was_interrupted=lambda: ctrl_c.came)
        finally:
            ctrl_c.works = False
    except KeyboardInterrupt:  # in the moments outside of `run`
        _leave()


def _leave() -> None:
    # Not `print`: the signal may have come while the stream was being written.
    os.write(2, b"coinfer: interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    main()
