"""Write the report of one run. This file decides which tiles and charts the page has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from coinfer.documents.writing import replace_file
from coinfer.metrics.memory_track import NO_MEMORY, MemoryRecords
from coinfer.metrics.records import ExecutionRecord, RequestRecord, Window
from coinfer.metrics.summary import Summary
from coinfer.report.facts import Facts, gather
from coinfer.report.gantt import gantt
from coinfer.report.latency_chart import latency_chart
from coinfer.report.outcomes_chart import outcomes_chart
from coinfer.report.page import Section, Tile, chart_library, page
from coinfer.report.palette import MISSES, model_colours
from coinfer.report.processors_chart import processors_chart
from coinfer.report.tables import environment_table, model_table, processor_table, score_table
from coinfer.report.timeline import timeline
from coinfer.report.words import count, digits, escaped, milliseconds, percent, seconds

__all__ = ["write_report"]

_Shares = Mapping[str, Mapping[str, float]]


def write_report(
    path: Path,
    summary: Summary,
    *,
    requests: Iterable[RequestRecord],
    executions: Iterable[ExecutionRecord],
    window: Window,
    origin_s: float = 0.0,
    shares: _Shares | None = None,
    scenario_text: str = "",
    memory: MemoryRecords = NO_MEMORY,
) -> None:
    """Write one run as a page that needs no network; the file is replaced in one step.

    The size of the page is bounded: bars of single executions are drawn for a few windows only,
    all else is aggregated.

    Args:
        path: Where to.
        summary: The figures of the run.
        requests: `Recorder.requests()`.
        executions: `Recorder.executions()`.
        window: `Recorder.window`.
        origin_s: The moment, in the driver's time, at which the load began.
        shares: `{processor: {model: share of its time}}` in the optimum of the bound.
        scenario_text: The scenario as it was given.
        memory: `Recorder.memory()`.

    Raises:
        ConfigurationError: plotly is not installed.
        OSError: the file cannot be written.
    """
    facts = gather(
        summary,
        requests,
        executions,
        window,
        origin_s=origin_s,
        shares=shares,
        memory=memory,
    )
    replace_file(path, _page(facts, scenario_text))


def _page(facts: Facts, scenario_text: str) -> str:
    summary, colours = facts.summary, model_colours(facts.models)
    return page(
        summary.scenario,
        list(_sections(facts, colours, scenario_text)),
        facts=_subtitle(summary),
        tiles=_tiles(facts),
        warnings=summary.warnings,
        colours=colours,
        library=chart_library(),
    )


def _subtitle(summary: Summary) -> tuple[str, ...]:
    verb = "measured" if summary.mode == "run" else "simulated"
    length = f"{seconds(summary.duration_s)} {verb}"
    return summary.mode, f"policy {summary.policy}", f"seed {summary.seed}", length


def _tiles(facts: Facts) -> Iterator[Tile]:
    yield _throughput(facts.summary)
    yield _in_time(facts)
    yield _completed(facts.summary)
    yield _slowest(facts.summary)
    yield _busiest(facts.summary)
    score = facts.summary.score
    if score is not None and score.score is not None:
        yield Tile(
            label="XRBench score",
            value=digits(score.score),
            note="of 100, energy left out",
            share=score.score / 100,
        )


def _throughput(summary: Summary) -> Tile:
    bound = summary.bound
    note = "no bound is known"
    if bound.throughput_per_s is not None:
        note = f"{percent(bound.fraction)} of the bound, {digits(bound.throughput_per_s)}/s"
    return Tile(
        label="Throughput",
        value=f"{digits(summary.totals.throughput_per_s)}/s",
        note=note,
        share=bound.fraction,
    )


def _in_time(facts: Facts) -> Tile:
    promised = facts.counted & np.isfinite(facts.patience_s)
    total = int(promised.sum())
    if not total:
        return Tile(label="Deadlines met", value="–", note="no request had a deadline")
    hits = int((promised & facts.outcome_is("in time")).sum())
    return Tile(
        label="Deadlines met",
        value=percent(hits / total),
        note=f"{count(hits)} of {count(total)} requests with a deadline",
        share=hits / total,
    )


def _completed(summary: Summary) -> Tile:
    totals = summary.totals
    found = [f"{count(n)} {kind}" for kind in MISSES if (n := getattr(totals, kind))]
    return Tile(
        label="Requests completed",
        value=count(totals.completed),
        note=f"of {count(totals.submitted)}; {', '.join(found) or 'none missed'}",
    )


def _slowest(summary: Summary) -> Tile:
    tails = {n: row.latency_ms.p99 for n, row in summary.models.items() if row.latency_ms.p99}
    if not tails:
        return Tile(label="Slowest p99", value="–", note="no request was completed")
    model = max(tails, key=lambda name: tails[name] or 0.0)
    median = summary.models[model].latency_ms.p50
    return Tile(
        label="Slowest p99",
        value=milliseconds(tails[model]),
        note=f"{model}; its median is {milliseconds(median)}",
    )


def _busiest(summary: Summary) -> Tile:
    """Processors that share a unit are busy one after the other, so their shares add up."""
    units: dict[str, float] = {}
    for row in summary.processors.values():
        for unit in row.units:
            units[unit] = units.get(unit, 0.0) + row.busy_fraction
    if not units:
        return Tile(label="Busiest unit", value="–", note="no processor")
    unit = max(units, key=lambda name: units[name])
    least = min(units.values())
    note = unit if len(units) == 1 else f"{unit}; the least busy of {len(units)}: {percent(least)}"
    return Tile(label="Busiest unit", value=percent(units[unit]), note=note, share=units[unit])


def _sections(facts: Facts, colours: dict[str, str], scenario_text: str) -> Iterator[Section]:
    charts = (
        (latency_chart(facts, colours), "How long requests took", "No request was completed."),
        (gantt(facts, colours), "What ran where", "Nothing was executed."),
        (timeline(facts, colours), "The whole run over time", "Nothing happened."),
        (processors_chart(facts, colours), "What processors did", "No processor did anything."),
        (outcomes_chart(facts.summary.models), "What became of requests", "None was submitted."),
    )
    for chart, title, nothing in charts:
        if chart is None:
            yield Section(title=title, html=f'<p class="caption">{nothing}</p>')
        else:
            yield Section(title=chart.title, chart=chart)
    yield Section(title="Figures by model", html=model_table(facts.summary, colours))
    if facts.summary.score is not None:
        score = score_table(facts.summary.score, colours)
        yield Section(title="XRBench score", html=score)
    yield Section(title="Figures by processor", html=processor_table(facts.summary))
    yield Section(
        title="Environment", html=environment_table(facts.summary.environment), folded=True
    )
    if scenario_text:
        html = f"<pre>{escaped(scenario_text)}</pre>"
        yield Section(title="The scenario", html=html, folded=True)
