"""`coinfer profile`: measure models on the processors of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from rich.table import Table

    from coinfer.model import Model
    from coinfer.profiles import Profile

__all__ = ["profile"]


def profile(
    models: Annotated[
        list[str], typer.Argument(help="Model files, zoo:NAME, or scenario files (.yaml).")
    ],
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Batch sizes; repeat.")] = None,
    backend: Annotated[list[str] | None, typer.Option(help="Only these backends; repeat.")] = None,
    precision: Annotated[
        list[str] | None, typer.Option(help="Precisions below fp32 to try, e.g. bf16; repeat.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", help="Write the profile as JSON.")] = None,
    fresh: Annotated[bool, typer.Option(help="Measure again what is in the cache.")] = False,
) -> None:
    """Measure service times and memory of models on every processor of this machine."""
    from coinfer.cli.output import check_writable, write_json
    from coinfer.cli.profiler_bar import profiler_bar
    from coinfer.hardware.catalogue import default_processors
    from coinfer.profiling import default_cache, profile_models

    check_writable(output)
    console = Console()
    processors = default_processors(backend or None, precisions=("fp32", *(precision or ())))
    found = _models(models)
    skipped: list[str] = []
    with profiler_bar(Console(stderr=True)) as progress:
        measured = profile_models(
            found,
            processors,
            batches=tuple(batch or (1,)),
            cache=None if fresh else default_cache(),
            progress=progress,
            skipped=skipped.append,
        )
    console.print(_table(measured))
    for reason in dict.fromkeys(skipped):
        console.print(f"skipped: {reason}", highlight=False, markup=False)
    if output is not None:
        write_json(output, measured.to_json())
        Console(stderr=True).print(f"profile: {output}", highlight=False)


def _models(sources: list[str]) -> dict[str, Model]:
    from coinfer.errors import ConfigurationError
    from coinfer.sources import resolve_model
    from coinfer.workload.scenario_file import load_scenario

    found: dict[str, Model] = {}
    for source in sources:
        if source.endswith((".yaml", ".yml")):
            specs = load_scenario(Path(source)).models
            named = {n: resolve_model(spec.source, name=n) for n, spec in specs.items()}
        else:
            model = resolve_model(source)
            named = {model.name: model}
        for name, model in named.items():
            if name in found and found[name].fingerprint != model.fingerprint:
                raise ConfigurationError(f"two different models are named {name!r}; rename one")
            found[name] = model
    return found


def _table(measured: Profile) -> Table:
    from rich import box
    from rich.table import Table

    from coinfer.units import format_bytes

    table = Table(box=box.SIMPLE_HEAD)
    for header in ("model", "processor"):
        table.add_column(header)
    headers = ("batch", "mean ms", "p50 ms", "p99 ms", "runs", "load s", "resident", "running")
    for header in (*headers, "error"):
        table.add_column(header, justify="right", no_wrap=True)
    for key, entry in measured:
        table.add_row(
            key.model,
            key.processor,
            str(key.batch),
            *(f"{s * 1e3:.3g}" for s in (entry.mean_s, entry.median_s, entry.quantile_s(0.99))),
            str(len(entry.seconds)),
            f"{entry.load_s:.2f}",
            format_bytes(entry.resident_bytes),
            format_bytes(entry.run_bytes),
            "-" if entry.error is None else f"{entry.error:.2g}",
        )
    return table
