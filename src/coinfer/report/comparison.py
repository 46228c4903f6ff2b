"""Write several runs side by side as one HTML page. It needs their summaries, not their records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from coinfer.documents.writing import replace_file
from coinfer.errors import ConfigurationError
from coinfer.metrics.summary import Summary
from coinfer.report.comparison_charts import hits_chart, latencies_chart, throughput_chart
from coinfer.report.comparison_table import comparison_table, hit_rate
from coinfer.report.outcomes_chart import outcomes_chart
from coinfer.report.page import Section, Tile, chart_library, page
from coinfer.report.palette import model_colours
from coinfer.report.tables import environment_table, table
from coinfer.report.words import count, digits, escaped, milliseconds, percent, seconds

__all__ = ["run_labels", "write_comparison_report"]


def write_comparison_report(
    path: Path, summaries: Sequence[Summary], *, labels: Sequence[str] = ()
) -> None:
    """Write several runs as one page that needs no network; the file is replaced in one step.

    Args:
        path: Where to.
        summaries: At least one, in the order to show them.
        labels: What to call them; by default what tells them apart, e.g. the policies.

    Raises:
        ConfigurationError: no run is given, the labels do not fit, or plotly is not installed.
        OSError: the file cannot be written.
    """
    if not summaries:
        raise ConfigurationError("there is nothing to compare; name at least one run")
    names = list(labels) or run_labels(summaries)
    if len(names) != len(summaries) or len(set(names)) != len(names):
        raise ConfigurationError(
            f"{len(summaries)} runs need as many different labels, got: {', '.join(names)}"
        )
    runs = dict(zip(names, summaries, strict=True))
    models = dict.fromkeys(model for run in summaries for model in run.models)
    scenarios = dict.fromkeys(run.scenario for run in summaries)
    colours = model_colours(models)
    text = page(
        f"{', '.join(scenarios)}: {len(runs)} runs side by side",
        list(_sections(runs, colours)),
        facts=runs,
        tiles=_tiles(runs),
        warnings=list(_warnings(runs)),
        colours=colours,
        library=chart_library(),
    )
    replace_file(path, text)


def run_labels(summaries: Sequence[Summary]) -> list[str]:
    """Call each run by what tells it from the others, in as few words as that takes."""
    kinds = [
        [s.policy for s in summaries],
        [s.mode for s in summaries],
        [s.scenario for s in summaries],
        [f"seed {s.seed}" for s in summaries],
    ]
    telling = [kind for kind in kinds if len(set(kind)) > 1] or kinds[:1]
    names = [", ".join(words) for words in zip(*telling, strict=True)]
    if len(set(names)) == len(names):
        return names
    return [f"{number}: {name}" for number, name in enumerate(names, start=1)]


def _tiles(runs: Mapping[str, Summary]) -> Iterator[Tile]:
    reached = {n: run.totals.throughput_per_s for n, run in runs.items()}
    hits = {n: hit_rate(run) for n, run in runs.items()}
    tails = {n: _worst_p99(run) for n, run in runs.items()}
    yield from _best("Highest throughput", reached, lambda rate: f"{digits(rate)}/s")
    yield from _best("Most deadlines met", hits, percent)
    yield from _best("Lowest p99 of the slowest model", tails, milliseconds, least=True)


def _best(
    label: str,
    figures: Mapping[str, float | None],
    text: Callable[[float | None], str],
    *,
    least: bool = False,
) -> Iterator[Tile]:
    """The run with the largest figure, or with the smallest; nothing if no run has the figure."""
    found = {name: value for name, value in figures.items() if value is not None}
    if not found:
        return
    lowest, highest = min(found, key=found.__getitem__), max(found, key=found.__getitem__)
    best, worst = (lowest, highest) if least else (highest, lowest)
    names = [name for name, value in found.items() if value == found[best]]
    note = "all alike"
    if len(names) < len(found):
        note = f"{', '.join(names)}; worst: {text(found[worst])} ({worst})"
    yield Tile(label=label, value=text(found[best]), note=note)


def _worst_p99(run: Summary) -> float | None:
    tails = [row.latency_ms.p99 for row in run.models.values() if row.latency_ms.p99 is not None]
    return max(tails, default=None)


def _warnings(runs: Mapping[str, Summary]) -> Iterator[str]:
    for what, values in (
        ("scenarios", {run.scenario for run in runs.values()}),
        ("models", {tuple(sorted(run.models)) for run in runs.values()}),
        ("seeds", {run.seed for run in runs.values()}),
        ("lengths", {round(run.duration_s, 3) for run in runs.values()}),
    ):
        if len(values) > 1:
            yield f"the runs are of different {what}: compare with care"
    for name, run in runs.items():
        yield from (f"{name}: {text}" for text in run.warnings)


def _sections(runs: Mapping[str, Summary], colours: dict[str, str]) -> Iterator[Section]:
    totals = {name: run.totals for name, run in runs.items()}
    charts = (
        throughput_chart(runs, colours),
        hits_chart(runs, colours),
        latencies_chart(runs, colours),
        outcomes_chart(totals, title="What became of requests, all models together"),
    )
    for chart in charts:
        if chart is not None:
            yield Section(title=chart.title, chart=chart)
    yield Section(title="Figures", html=comparison_table(runs, colours))
    yield Section(title="Busy share of processors", html=_processors(runs))
    yield Section(title="The runs", html=_facts(runs))
    yield Section(title="Environment", html=_environments(runs), folded=True)


def _processors(runs: Mapping[str, Summary]) -> str:
    names = dict.fromkeys(name for run in runs.values() for name in run.processors)
    rows = [
        [escaped(name), *(percent(getattr(row, "busy_fraction", None)) for row in found)]
        for name in names
        if (found := [run.processors.get(name) for run in runs.values()])
    ]
    return table(("processor", *runs), rows)


def _facts(runs: Mapping[str, Summary]) -> str:
    headers = ("run", "scenario", "mode", "policy", "seed", "length", "submitted")
    rows = [
        [
            *map(escaped, (name, run.scenario, run.mode, run.policy, run.seed)),
            seconds(run.duration_s),
            count(run.totals.submitted),
        ]
        for name, run in runs.items()
    ]
    return table(headers, rows, words=4)


def _environments(runs: Mapping[str, Summary]) -> str:
    first = next(iter(runs.values())).environment
    if all(run.environment == first for run in runs.values()):
        return f'<p class="caption">The same in all runs.</p>{environment_table(first)}'
    return "".join(
        f"<h3>{escaped(name)}</h3>{environment_table(run.environment)}"
        for name, run in runs.items()
    )
