"""`coinfer profile`: measure models on the processors of this machine."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from coinfer.cli.console import out
from coinfer.cli.options import AllowDataOption
from coinfer.cli.output import check_writable, write_result
from coinfer.cli.progress_bars import profiler_bar
from coinfer.errors import ConfigurationError, UnknownNameError
from coinfer.hardware.catalogue import default_processors
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.model import Model
from coinfer.units import format_bytes

__all__ = ["profile"]

_LOWER = ("bf16", "fp16", "int8")


def profile(
    models: Annotated[
        list[str],
        typer.Argument(help="Model files, zoo:NAME, or scenarios (.yaml).", metavar="MODEL..."),
    ],
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Batch size; repeat it.")] = None,
    backend: Annotated[
        list[str] | None, typer.Option(help="Only this backend; repeat it.", metavar="NAME")
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(
            help="Precision below fp32 to measure as well; repeat it.",
            metavar="|".join(_LOWER),
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Write the profile as JSON.", metavar="FILE"),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure again what is in the cache.")
    ] = False,
    allow_data_in: AllowDataOption = None,
) -> None:
    """Measure service times and memory of models on every processor of this machine.

    Times are in ms per run of a whole batch; `error` is ||out - ref|| / ||ref||, below fp32 against
    fp32, and in fp32 against onnxruntime on one thread.
    """
    from coinfer.profiling import Skip, default_cache, profile_models, require_runnable
    from coinfer.profiling.agreement import refusals, with_errors
    from coinfer.profiling.agreements import agreements
    from coinfer.workload.agreement_spec import AgreementSpec

    check_writable(output)
    processors = _processors(backend or [], precision or [])
    found = _models(models, allow_data_in)
    skips: list[Skip] = []
    cache = dataclasses.replace(default_cache(), reads=not fresh)
    refused: dict[tuple[str, str], str] = {}
    with profiler_bar() as progress:
        measured = profile_models(
            found,
            processors,
            batches=tuple(dict.fromkeys(batch or (1,))),
            cache=cache,
            progress=progress,
            skipped=skips.append,
        )
        for name, model in found.items():
            able = [p for p in processors if p.name in measured.spans_by_processor(name)]
            compared = agreements(model, able, AgreementSpec().tolerance, cache=cache)
            measured = with_errors(measured, name, compared, able)
            for each, why in refusals(compared, able, AgreementSpec(), math.inf).items():
                refused[name, each] = f"{name} must not run on {each}: {why}"
    console = out()
    if measured.entries:
        console.print(_table(measured))
    for reason in dict.fromkeys(skip.reason for skip in skips):
        console.print(f"skipped: {reason}", soft_wrap=True)
    for warning in refused.values():
        console.print(f"warning: {warning}", soft_wrap=True)
    allowed = measured.where(lambda key: (key.model, key.processor) not in refused)
    write_result(output, allowed.to_json(), "profile")
    skips += [Skip(*pair, why) for pair, why in refused.items()]
    require_runnable(found, allowed, skips)


def _processors(backends: list[str], precisions: list[str]) -> tuple[Processor, ...]:
    for precision in precisions:
        if precision not in _LOWER:
            raise UnknownNameError.of("precision", precision, _LOWER)
    processors = default_processors(backends or None, precisions=("fp32", *precisions))
    for precision in precisions:
        if precision not in {processor.precision for processor in processors}:
            raise ConfigurationError(
                f"no processor here computes in {precision}; see `coinfer doctor`"
            )
    return processors


def _models(sources: list[str], data_root: Path | None) -> dict[str, Model]:
    from coinfer.planner.model_source import resolve_model
    from coinfer.workload.scenario_file import load_scenario

    found: dict[str, Model] = {}
    for source in sources:
        if source.endswith((".yaml", ".yml")):
            specs = load_scenario(Path(source)).models
            named = {
                n: resolve_model(spec.source, name=n, data_root=data_root)
                for n, spec in specs.items()
            }
        else:
            model = resolve_model(source, data_root=data_root)
            named = {model.name: model}
        for name, model in named.items():
            if name in found and found[name].fingerprint != model.fingerprint:
                raise ConfigurationError(f"two different models are named {name!r}; rename one")
            found[name] = model
    return found


def _table(measured: Profile) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for header in ("model", "processor"):
        table.add_column(header, overflow="fold")
    headers = ("batch", "mean", "p50", "p99", "runs", "load s", "resident", "running", "error")
    for header in headers:
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
