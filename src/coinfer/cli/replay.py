"""`coinfer replay`: feed a recorded run to a fresh dispatcher and compare what it commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coinfer.cli.console import print_lines

__all__ = ["replay"]


def replay(
    log: Annotated[
        Path, typer.Argument(help="A log that `--record` wrote (JSON lines).", metavar="LOG")
    ],
) -> None:
    """Check that a recorded run can be replayed: same events, same commands.

    Exit status 1 and one line at the first step that differs.
    """
    from coinfer.replay import replay as replay_log

    done = replay_log(log)
    header = done.header
    if done.difference is not None:
        print_lines(f"differs: {done.difference}")
        raise typer.Exit(1)
    print_lines(
        f"identical: {header.scenario or log}, policy {header.policy}, {done.steps:,} steps, "
        f"{done.commands:,} commands"
    )
