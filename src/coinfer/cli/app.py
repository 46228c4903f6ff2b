"""The `coinfer` program: collects the verbs and turns errors into one line and an exit status."""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from coinfer.cli.doctor import doctor
from coinfer.cli.inspect import inspect
from coinfer.cli.profile import profile
from coinfer.cli.run import run
from coinfer.cli.zoo import zoo_app
from coinfer.errors import CallerError, CoinferError

__all__ = ["app", "main"]

app = typer.Typer(
    name="coinfer",
    help="Run many neural networks at once on the processors of one machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command()(run)
app.command()(profile)
app.command()(inspect)
app.command()(doctor)
app.add_typer(zoo_app, name="zoo")


def main(argv: list[str] | None = None) -> None:
    """Run the program; an expected error prints one line on stderr.

    Exit status: 0 done, 1 the system's fault, 2 the caller's fault, 130 interrupted.
    """
    try:
        app(args=argv)
    except CoinferError as error:
        text = " ".join(str(error).split())
        Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(
            f"coinfer: error: {text}"
        )
        sys.exit(2 if isinstance(error, CallerError) else 1)
    except KeyboardInterrupt:
        sys.exit(130)
