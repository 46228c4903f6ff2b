"""`coinfer profile`: measure models on the processors of this machine."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple, TypeAlias

import typer
from rich.table import Table

from coinfer.backends.base import Tensors
from coinfer.cli.console import new_table, out, print_lines
from coinfer.cli.options import AllowDataOption, DimOption, InputsOption, sizes
from coinfer.cli.output import check_writable, write_result
from coinfer.cli.progress_bars import profiler_bar
from coinfer.errors import ConfigurationError, UnknownNameError
from coinfer.hardware.catalogue import default_processors
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile, ProfileKey
from coinfer.model import Model
from coinfer.plan.work import Work
from coinfer.planner.model_source import resolve_model
from coinfer.units import format_bytes

__all__ = ["profile"]

_LOWER = ("bf16", "fp16", "int8")

PrecisionOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        help="Precision below fp32 to measure as well; repeat it.", metavar="|".join(_LOWER)
    ),
]


def profile(
    models: Annotated[
        list[str],
        typer.Argument(help="Model files, zoo:NAME, or scenarios (.yaml).", metavar="MODEL..."),
    ],
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Batch size; repeat it.")] = None,
    backend: Annotated[
        list[str] | None, typer.Option(help="Only this backend; repeat it.", metavar="NAME")
    ] = None,
    precision: PrecisionOption = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Write the profile as JSON.", metavar="FILE"),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure again what is in the cache.")
    ] = False,
    dim: DimOption = None,
    inputs: InputsOption = None,
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
    measured_at = _measured_at(_models(models, allow_data_in), processors, sizes(dim), inputs)
    skips: list[Skip] = []
    batches = tuple(dict.fromkeys(batch or (1,)))
    cache = dataclasses.replace(default_cache(), reads=not fresh)
    refused: dict[tuple[str, str], str] = {}
    with profiler_bar() as bar:
        measured = profile_models(
            measured_at.models,
            processors,
            batches=batches,
            cache=cache,
            feeds=measured_at.feeds,
            works=measured_at.works,
            progress=bar,
            skipped=skips.append,
        )
        for name, model in measured_at.models.items():
            able = [p for p in processors if p.name in measured.spans_by_processor(name)]
            feeds = measured_at.feeds[name]
            compared = agreements(model, able, AgreementSpec().tolerance, feeds=feeds, cache=cache)
            measured = with_errors(measured, name, compared, able)
            for each, why in refusals(compared, able, AgreementSpec(), math.inf).items():
                refused[name, each] = f"{name} must not run on {each}: {why}"
    if measured.entries:
        out().print(_table(measured, measured_at))
    print_lines(*(f"warning: {warning}" for warning in measured_at.warnings))
    print_lines(*dict.fromkeys(f"skipped: {skip.reason}" for skip in skips))
    print_lines(*(f"warning: {warning}" for warning in refused.values()))
    allowed = measured.where(lambda key: (key.model, key.processor) not in refused)
    write_result(output, allowed.to_json(), "profile")
    skips += [Skip(*pair, why) for pair, why in refused.items()]
    require_runnable(measured_at.models, allowed, skips)


class _MeasuredAt(NamedTuple):
    """Models with what they are measured with."""

    models: Mapping[str, Model]
    feeds: Mapping[str, Sequence[Tensors]]
    works: Mapping[str, Work]
    warnings: Sequence[str]


def _measured_at(
    models: dict[str, Model],
    processors: Sequence[Processor],
    dims: Mapping[str, int],
    inputs: Path | None,
) -> _MeasuredAt:
    """Settle what the first axes are and which samples are measured."""
    from coinfer.planner.given_samples import read_samples
    from coinfer.planner.samples import measurable, work_at
    from coinfer.profiling import Profiler, default_cache

    if inputs is not None and len(models) > 1:
        raise ConfigurationError("--inputs are those of one model; measure it alone")
    given = {} if inputs is None else {n: read_samples(m, inputs) for n, m in models.items()}
    profiler = Profiler(cache=default_cache())
    found = measurable(models, processors, dims, profiler, given, filled=models.keys())
    feeds = {name: each.feeds for name, each in found.samples.items()}
    works = {name: work_at(model, feeds[name]) for name, model in found.models.items()}
    return _MeasuredAt(
        models=found.models,
        feeds=feeds,
        works={name: work for name, work in works.items() if work is not None},
        warnings=found.warnings,
    )


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


def _table(measured: Profile, measured_at: _MeasuredAt) -> Table:
    figures = ("batch", "mean", "p50", "p99", "runs", "load s", "resident", "running", "error")
    names = ("model", "processor", "sizes") if measured_at.works else ("model", "processor")
    table = new_table(*names, figures=figures, padding=(0, 1, 0, 0))
    for key, entry in measured:
        table.add_row(
            key.model,
            key.processor,
            *([_sizes_text(measured_at, key)] if measured_at.works else []),
            str(key.batch),
            *(f"{s * 1e3:.3g}" for s in (entry.mean_s, entry.median_s, entry.quantile_s(0.99))),
            str(len(entry.seconds)),
            f"{entry.load_s:.2f}",
            format_bytes(entry.resident_bytes),
            format_bytes(entry.run_bytes),
            "-" if entry.error is None else f"{entry.error:.2g}",
        )
    return table


def _sizes_text(measured_at: _MeasuredAt, key: ProfileKey) -> str:
    """Say which sizes an entry was measured at; of several of one class all of them."""
    work = measured_at.works.get(key.model)
    if work is None:
        return ""
    sizes = [work.sizes_of(feed) for feed in measured_at.feeds[key.model]]
    texts = [
        " ".join(f"{name}={size}" for name, size in each.items())
        for each in sizes
        if work.size_class(each) == key.shape
    ]
    return ", ".join(dict.fromkeys(texts))
