"""`coinfer zoo`: list the reference networks and write them to files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from coinfer.cli.console import out, print_lines
from coinfer.errors import ConfigurationError
from coinfer.units import format_bytes

__all__ = ["zoo_app"]

zoo_app = typer.Typer(
    help="Reference networks as ONNX, built without downloads, with seeded random weights.",
    no_args_is_help=True,
)


@zoo_app.command("list")
def list_networks() -> None:
    """List the networks with their published size and cost."""
    from coinfer import zoo

    table = Table("network", box=None, pad_edge=False)
    for heading in ("parameters", "GMACs", "input", "fp32 MB"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("figures from", overflow="fold")
    for name in zoo.names():
        entry = zoo.spec(name)
        table.add_row(
            name,
            f"{entry.parameters:,}",
            f"{entry.macs / 1e9:.3g}",
            "x".join(map(str, entry.input_shape)),
            f"{entry.parameters * 4 / 1e6:.3g}",
            entry.source,
        )
    out().print(table)


@zoo_app.command("export")
def export_networks(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="Networks to write, or `all`.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Directory; made if missing.")
    ],
    seed: Annotated[int, typer.Option(help="Decides the weights.")] = 0,
    repository: Annotated[
        bool,
        typer.Option("--repository", help="Write DIR/NAME/1/model.onnx, for `coinfer serve`."),
    ] = False,
) -> None:
    """Write networks to DIR/NAME.onnx, replacing what is there."""
    from coinfer import zoo

    chosen = list(zoo.names()) if "all" in names else list(dict.fromkeys(names))
    for name in chosen:
        zoo.spec(name)
    for name in chosen:
        try:
            (path,) = zoo.export([name], output, seed=seed, as_repository=repository)
        except OSError as error:
            raise ConfigurationError(
                f"cannot write {name} to {output}: {error.strerror or error}; "
                "choose another directory with -o"
            ) from error
        print_lines(f"{path}  {format_bytes(path.stat().st_size)}")
