"""Show a summary as tables for a terminal of 100 columns. Computes no figure."""

from __future__ import annotations

from collections.abc import Mapping

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from coinfer.metrics.memory_track import ProcessMemory
from coinfer.metrics.summary import ModelSummary, ProcessorSummary, Summary, TotalsSummary
from coinfer.units import format_bytes, format_digits

__all__ = ["fused_lines", "memory_lines", "render", "score_lines", "shared_text", "variants_text"]

_NONE = "-"
_RARE = ("rejected", "cancelled", "unfinished", "withheld", "retried")


def render(summary: Summary) -> RenderableType:
    """Everything a person wants to see after a run: both tables, the bound, the warnings."""
    title = Text.assemble(
        (summary.scenario, "bold"),
        f"  {summary.mode}, policy {summary.policy}, seed {summary.seed}, "
        f"{_digits(summary.duration_s)} s measured",
    )
    return Group(
        title,
        _model_table(summary),
        *_rare_lines(summary),
        *_shared_lines(summary),
        *_variant_lines(summary),
        *(Text(f" {line}") for line in fused_lines(summary)),
        *score_lines(summary),
        *([_processor_table(summary)] if summary.processors else []),
        *(Text(line) for line in memory_lines(summary)),
        _bound_line(summary),
        *(Text.assemble(("warning: ", "bold yellow"), text) for text in summary.warnings),
    )


def _model_table(summary: Summary) -> Table:
    """One row per model and one for all."""
    table = _table("model")
    counts = ("sub-\nmitted", "com-\npleted", "late", "drop-\nped", "failed")
    times = ("p50\nms", "p90\nms", "p95\nms", "p99\nms", "max\nms")
    for header in (*counts, "per s", *times, "in\ntime"):
        table.add_column(header, justify="right", no_wrap=True)
    for name, row in summary.models.items():
        latency = row.latency_ms
        shown = (latency.p50, latency.p90, latency.p95, latency.p99, latency.max)
        hits = _percent(row.deadline_hit_rate)
        table.add_row(name, *_counts(row), *map(_digits, shown), hits)
    table.add_section()
    table.add_row("all", *_counts(summary.totals), style="bold")
    return table


def _processor_table(summary: Summary) -> Table:
    """One row per processor; a column for failures only if there were any."""
    table = _table("processor")
    failures = any(row.failed for row in summary.processors.values())
    table.add_column("backend")
    table.add_column("units", overflow="fold")
    table.add_column("precision")
    for header in ("executions", *(["failed"] if failures else []), "busy"):
        table.add_column(header, justify="right", no_wrap=True)
    for name, row in summary.processors.items():
        failed = [_count(row.failed)] if failures else []
        table.add_row(
            name,
            row.backend,
            " ".join(row.units),
            _precision(row),
            _count(row.executions),
            *failed,
            _percent(row.busy_fraction),
        )
    return table


def _rare_lines(summary: Summary) -> list[Text]:
    """One line per model with outcomes that most runs do not have: there is no room for columns."""
    lines = []
    for name, row in summary.models.items():
        counts = [f"{_count(n)} {outcome}" for outcome in _RARE if (n := getattr(row, outcome))]
        if counts:
            lines.append(Text(f" {name}: {', '.join(counts)}"))
    return lines


def _shared_lines(summary: Summary) -> list[Text]:
    """One line per model of which executions served several requests: how many of how many."""
    return [
        Text(f" {name}: requests that shared a run: {shared_text(row.shared)}")
        for name, row in summary.models.items()
        if row.shared
    ]


def _variant_lines(summary: Summary) -> list[Text]:
    """One line per model with several variants: how often each served, and the error."""
    return [
        Text(f" {name}: served by {variants_text(row)}")
        for name, row in summary.models.items()
        if row.variants
    ]


def variants_text(row: ModelSummary) -> str:
    """Write which variants served the completed requests of a model, and the mean error."""
    total = sum(row.variants.values())
    each = ", ".join(
        f"{name} {count:,} ({count / total:.1%})" for name, count in row.variants.items()
    )
    return f"{each}; mean output error {row.mean_error or 0:.2g}"


def shared_text(shared: Mapping[int, int]) -> str:
    """Write how many executions served how many requests.

    >>> shared_text({2: 40, 5: 3})
    '95 in 43 runs (2 in 40, 5 in 3)'
    """
    served = sum(size * runs for size, runs in shared.items())
    each = ", ".join(f"{size} in {runs:,}" for size, runs in shared.items())
    return f"{served:,} in {sum(shared.values()):,} runs ({each})"


def fused_lines(summary: Summary) -> list[str]:
    """One line per fused variant that ran: how many shared its runs, and how much was padding."""
    lines = []
    for name, row in summary.fused.items():
        runs = sum(row.served.values())
        if runs:
            share = _percent(row.padded / (row.slots * runs))
            text = f"{name}: {shared_text(row.served)}, of {row.slots} slots; {share} padding"
            lines.append(text)
    return lines


def score_lines(summary: Summary) -> list[Text]:
    """The score that the scenario asks for: each model's part, then the whole."""
    score = summary.score
    if score is None:
        return []
    lines = [
        Text(
            f" {name}: QoE {_percent(row.qoe)} of {_count(row.frames)} frames, "
            f"realtime {_percent(row.realtime)}, score {_percent(row.score)}"
        )
        for name, row in score.models.items()
    ]
    whole = _digits(score.score)
    return [*lines, Text.assemble("XRBench score ", (whole, "bold"), " of 100, energy left out")]


def memory_lines(summary: Summary) -> list[str]:
    """What was loaded and evicted, and what the process held; none without a memory budget."""
    memory = summary.memory
    if memory is None:
        return []
    budgets = ", ".join(f"{format_bytes(b)} {name}" for name, b in memory.budget_bytes.items())
    failed = f", {_count(memory.failed)} failed" if memory.failed else ""
    share = memory.load_s / summary.duration_s if summary.duration_s else 0.0
    lines = [
        f"memory {budgets}: {_count(memory.loads)} loads of "
        f"{format_bytes(memory.loaded_bytes)}{failed}, {_count(memory.evictions)} evictions; "
        f"loading {_percent(share)} of the time"
    ]
    # What ended in the measured time; much may end after it, and then all of that is no measure.
    ended = summary.totals.throughput_per_s * summary.duration_s
    if memory.least_load_s is not None and ended:
        each_ms = memory.load_s / ended * 1e3
        least_ms = memory.least_load_s * 1e3
        least = f"; no schedule needs less than {_digits(least_ms)} ms" if least_ms else ""
        lines.append(f"  {_digits(each_ms)} ms of loading a request{least}")
    if memory.believed_bytes:
        most = ", ".join(f"{format_bytes(b)} {name}" for name, b in memory.believed_bytes.items())
        held = "" if memory.held is None else f"; the process held {_held_text(memory.held)}"
        before = memory.held_before
        rest = "" if before is None else f", before loading {_held_text(before)}"
        lines.append(f"  at most {most} believed loaded{held}{rest}")
    return lines


def _held_text(held: ProcessMemory) -> str:
    return f"{format_bytes(held.anonymous)} of its own and {format_bytes(held.mapped)} of files"


def _bound_line(summary: Summary) -> Text:
    """The throughput, the bound and the fraction reached, in one line."""
    reached = f"{_digits(summary.totals.throughput_per_s)}/s"
    bound = summary.bound
    if bound.throughput_per_s is None:
        return Text.assemble("throughput ", (reached, "bold"), "; no bound without a profile")
    return Text.assemble(
        "throughput ",
        (reached, "bold"),
        f" of {_digits(bound.throughput_per_s)}/s, the bound for the {bound.mix_of} mix: ",
        (_percent(bound.fraction), "bold"),
    )


def _table(first: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    # In a narrow terminal names are folded. Numbers never are: a cut number would be wrong.
    table.add_column(first, overflow="fold")
    return table


def _counts(row: ModelSummary | TotalsSummary) -> list[str]:
    outcomes = ("submitted", "completed", "late", "dropped", "failed")
    counts = [_count(getattr(row, outcome)) for outcome in outcomes]
    return [*counts, _digits(row.throughput_per_s)]


def _precision(row: ProcessorSummary) -> str:
    if not row.output_errors:
        return row.precision
    return f"{row.precision} (error <= {max(row.output_errors.values()):.2g})"


def _count(value: int) -> str:
    return f"{value:,}"


def _percent(share: float | None) -> str:
    return _NONE if share is None else f"{share:.1%}"


def _digits(value: float | None) -> str:
    return _NONE if value is None else format_digits(value)
