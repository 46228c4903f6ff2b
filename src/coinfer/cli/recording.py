"""`--record LOG`: write the steps of a run for `coinfer replay`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from coinfer.cli.console import err

if TYPE_CHECKING:
    from coinfer.replay import EventLog
    from coinfer.runtime.prepared import Prepared

__all__ = ["recorded"]


@contextmanager
def recorded(path: Path | None, ready: Prepared) -> Iterator[EventLog | None]:
    """Open the log that the user asked for; None if no path is given.

    Raises:
        ConfigurationError: the file cannot be written.
    """
    if path is None:
        yield None
        return
    from coinfer.replay import LogHeader, recording

    header = LogHeader(
        policy=ready.plan.policy.name,
        options=ready.plan.policy.options,
        processors=ready.plan.processors,
        limits=ready.scenario.limits,
        scenario=ready.scenario.name,
    )
    with recording(path, header) as log:
        yield log
    if log.problem:
        err().print(f"warning: {path} ends before the run does: {log.problem}")
