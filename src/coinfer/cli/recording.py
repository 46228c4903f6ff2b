"""`--record LOG`: write the steps of a run for `coinfer replay`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from coinfer.cli.console import err

if TYPE_CHECKING:
    from coinfer.machine.processor import Processor
    from coinfer.replay import EventLog
    from coinfer.workload.scenario import Scenario

__all__ = ["recorded"]


@contextmanager
def recorded(
    path: Path | None, scenario: Scenario, processors: Sequence[Processor]
) -> Iterator[EventLog | None]:
    """Open the log that the user asked for; None if no path is given.

    Raises:
        ConfigurationError: the file cannot be written.
    """
    if path is None:
        yield None
        return
    from coinfer.replay import LogHeader, recording

    header = LogHeader(
        policy=scenario.policy.name,
        options=scenario.policy.options,
        processors=tuple(processors),
        limits=scenario.limits,
        scenario=scenario.name,
    )
    with recording(path, header) as log:
        yield log
    if log.problem:
        err().print(f"warning: {path} ends before the run does: {log.problem}")
