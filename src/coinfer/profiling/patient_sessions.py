"""Patient sessions: sessions whose runs are given up when they hang: for results, and for times."""

from __future__ import annotations

import math
import time
from typing import Protocol

from coinfer.backends.base import Placement, Session, Tensor, Tensors
from coinfer.backends.patience import HangError, patience_s, patiently
from coinfer.machine.processor import Processor
from coinfer.model import Model

__all__ = ["PatientSession", "Runner", "WatchedSession", "running"]


class Runner(Protocol):
    """What runs a model: a session, or something around one."""

    def run(self, inputs: Tensors) -> dict[str, Tensor]:
        """Compute all outputs."""
        ...


def running(model: Model, processor: Processor) -> str:
    """Say what is done, for the message of a library that hangs."""
    return f"running model {model.name!r} on processor {processor.name!r}"


class PatientSession:
    """Runs each time in a thread of its own, no longer than patience lasts; not to be timed.

    Where a run hangs, the next ones fail at once, and the session is never closed.

    Args:
        session: What to run.
        what: What a run is called: see `running`.
    """

    def __init__(self, session: Session, what: str) -> None:
        self._session, self._what = session, what
        self._hang: HangError | None = None

    def run(self, inputs: Tensors) -> dict[str, Tensor]:
        """Compute all outputs.

        Raises:
            HangError: this run hangs, or one before.
            Exception: what the session raises.
        """
        if self._hang is not None:
            raise HangError(*self._hang.args)
        try:
            return patiently(lambda: self._session.run(inputs), self._what)
        except HangError as error:
            self._hang = error
            raise

    def placement(self) -> Placement:
        """Tell where the operators really run."""
        return self._session.placement()

    def close(self) -> None:
        """Give the memory back, unless something hangs in it."""
        if self._hang is None:
            self._session.close()


class WatchedSession:
    """Runs in the calling thread and may be timed; another thread finds out whether it hangs.

    Args:
        session: What to run, by one thread at a time.
        what: What a run is called: see `running`.
    """

    def __init__(self, session: Session, what: str) -> None:
        self._run, self._what = session.run, what
        self._began_s = math.inf

    def run(self, inputs: Tensors) -> dict[str, Tensor]:
        """Compute all outputs."""
        self._began_s = time.monotonic()
        try:
            return self._run(inputs)
        finally:
            self._began_s = math.inf

    def check(self) -> None:
        """Find out whether the present run takes too long.

        Raises:
            HangError: it does. Whoever runs it is to be left behind, and nothing to be closed.
        """
        limit_s = patience_s()
        if time.monotonic() - self._began_s > limit_s:
            raise HangError.of(self._what, limit_s)
