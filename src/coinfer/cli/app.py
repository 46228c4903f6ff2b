"""The `coinfer` program: collects the verbs and turns errors into one line and an exit status."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from coinfer import __version__
from coinfer.cli.batch_plan import batch_plan
from coinfer.cli.bound import bound
from coinfer.cli.cache import cache_app
from coinfer.cli.compare import compare
from coinfer.cli.compress import compress
from coinfer.cli.console import UNREAD, err, finish, prepare, print_lines
from coinfer.cli.doctor import doctor
from coinfer.cli.failure import CALLERS_FAULT, SYSTEMS_FAULT, Failure
from coinfer.cli.fuse import fuse
from coinfer.cli.inspect import inspect
from coinfer.cli.load import load
from coinfer.cli.log_handler import LogHandler
from coinfer.cli.partition import partition
from coinfer.cli.plan import plan
from coinfer.cli.profile import profile
from coinfer.cli.replay import replay
from coinfer.cli.run import run
from coinfer.cli.saturate import saturate
from coinfer.cli.scenarios import scenarios_app
from coinfer.cli.serve import serve
from coinfer.cli.simulate import simulate
from coinfer.cli.zoo import zoo_app

__all__ = ["app", "main"]

_INTERRUPTED = 130
_LOG_HANDLER = LogHandler()

# Click's base of all usage errors. Typer brings click along or depends on it, as its version goes,
# so it cannot be imported by name.
_UsageProblem: type[Exception] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="coinfer",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
_OF_SCENARIOS = (plan, run, serve, load, simulate, bound, saturate, compare, replay)
_OF_MODELS_AND_MACHINES = (profile, inspect, partition, batch_plan, fuse, compress, doctor)
for verb in (*_OF_SCENARIOS, *_OF_MODELS_AND_MACHINES):
    app.command()(verb)
app.add_typer(cache_app, name="cache")
app.add_typer(scenarios_app, name="scenarios")
app.add_typer(zoo_app, name="zoo")


def _show_version(wanted: bool) -> None:
    if wanted:
        print_lines(f"coinfer {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Run many neural networks at once on the processors of one machine."""


def main(
    argv: list[str] | None = None, *, was_interrupted: Callable[[], bool] = lambda: False
) -> None:
    """Run the program and exit; an error prints one line on stderr, a bug two.

    Exit status: 0 done, 1 the system's fault, 2 the caller's fault, 70 a bug in coinfer, 130
    interrupted, 141 nobody read the output to its end.

    Args:
        argv: The arguments; None: those of the process.
        was_interrupted: Whether Ctrl-C came: a library may have made another error of it.
    """
    logging.getLogger("coinfer").addHandler(_LOG_HANDLER)
    prepare()
    status = _performed(argv, was_interrupted)
    try:
        if not finish():
            status = status or UNREAD
    except OSError as error:
        status = status or _fail(error)
    if status == _INTERRUPTED:
        _complain("interrupted")
    sys.exit(status)


def _performed(argv: list[str] | None, was_interrupted: Callable[[], bool]) -> int:
    """Run a verb; return the exit status."""
    try:
        status = app(args=argv, prog_name="coinfer", standalone_mode=False)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except _UsageProblem as error:
        _explain_usage(error)
        return CALLERS_FAULT
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else SYSTEMS_FAULT
    # Not only Exception: a panic in a library written in Rust is none.
    except BaseException as error:  # noqa: BLE001 - whatever it is, a user must not see a traceback
        return _INTERRUPTED if was_interrupted() else _fail(error)
    return status if isinstance(status, int) else 0


def _fail(error: BaseException) -> int:
    failure = Failure.of(error)
    for line in failure.lines:
        _complain(line)
    return failure.status


def _complain(text: str) -> None:
    err().print(f"coinfer: {' '.join(text.split())}")


def _explain_usage(error: Exception) -> None:
    if type(error).__name__ == "NoArgsIsHelpError":
        return  # making it has printed the help
    message = error.format_message()  # type: ignore[attr-defined]  # every usage problem has it
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "coinfer"
    _complain(f"error: {message.rstrip('.')}; see `{command} --help`")
