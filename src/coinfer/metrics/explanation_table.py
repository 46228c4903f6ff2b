"""Show an explanation as a table for a terminal of 100 columns. Computes no figure."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from coinfer.machine.span import Span
from coinfer.metrics.explanation import Alternative, Choice, Explanation
from coinfer.units import format_seconds

__all__ = ["render_explanation"]


def render_explanation(way: Explanation) -> RenderableType:
    """Show a request's executions with what every processor could have done instead."""
    request = way.request
    answer = "not answered" if way.outcome is None else way.outcome.value
    title = Text.assemble(
        (f"request {request.id} of {request.model}", "bold"),
        f": {answer} after {format_seconds(way.latency_s)}, in {len(way.choices)} execution"
        f"{'' if len(way.choices) == 1 else 's'}",
    )
    table = Table(box=box.SIMPLE_HEAD, highlight=False)
    for header in ("after due", "units", "processor"):
        table.add_column(header, no_wrap=True)
    for header in ("wait", "span", "done in"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("")
    for choice in way.choices:
        _add(table, choice, way)
        table.add_section()
    note = Text(
        "wait: until the processor should be free; span: what its next units should take; "
        "done in: wait, span and the best rest without waits",
        style="dim",
    )
    return Group(title, *_variants(way), table, note, _times(way))


def _variants(way: Explanation) -> list[Text]:
    """Say which variants ran and why, where there was a choice; a variant stays what it is."""
    reasons = {each.variant: each.why_variant for each in reversed(way.choices)}
    return [Text(f"served by {name}: {why}") for name, why in reversed(reasons.items()) if why]


def _times(way: Explanation) -> Table:
    """Show where the time went: each moment with the seconds since the one before."""
    table = Table(box=box.SIMPLE_HEAD, highlight=False)
    for header in ("after due", "took"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("until it was")
    before_s = due_s = way.request.arrival_s
    spans = {choice.span for choice in way.choices}
    for at_s, what, span in way.moments():
        units = f", units {_units(span)}" if span is not None and len(spans) > 1 else ""
        took = format_seconds(at_s - before_s) if at_s > before_s else ""
        table.add_row(format_seconds(at_s - due_s), took, what + units)
        before_s = at_s
    return table


def _add(table: Table, choice: Choice, way: Explanation) -> None:
    at = format_seconds(choice.at_s - way.request.arrival_s)
    for each in choice.alternatives:
        chosen = choice if each.processor == choice.processor else None
        table.add_row(
            at,
            _units((chosen or each).span),
            each.processor,
            *_expectations(each, chosen),
            _remark(each, chosen),
            style="bold" if chosen else "",
        )
        at = ""


def _expectations(each: Alternative, chosen: Choice | None) -> tuple[str, str, str]:
    if each.span is None:
        return "-", "-", "-"
    span_s = each.span_s if chosen is None else chosen.expected_s
    return format_seconds(each.wait_s), format_seconds(span_s), format_seconds(each.finish_s)


def _remark(each: Alternative, chosen: Choice | None) -> str:
    if chosen is None:
        return each.reason
    if chosen.failure:
        return f"chosen; failed: {chosen.failure}"
    if chosen.took_s is None:
        return "chosen"
    others = f" with {chosen.together - 1} other requests" if chosen.together > 1 else ""
    beside = "" if chosen.beside is None else f", beside units {_units(chosen.beside)}"
    return f"chosen; took {format_seconds(chosen.took_s)}{others}{beside}"


def _units(span: Span | None) -> str:
    if span is None:
        return "-"
    return str(span.first) if span.first == span.last else f"{span.first}-{span.last}"
