"""Page: put sections and charts into one HTML file with its style, script and chart library.

The page holds all that it needs, and its content security policy forbids network access.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from coinfer.errors import ConfigurationError
from coinfer.report.chart import Chart
from coinfer.report.words import escaped

__all__ = ["Section", "Tile", "chart_library", "page"]

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)
_HEAD = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A figure in large digits.

    Attributes:
        label: What it is.
        value: The figure with its unit.
        note: A line below; plain text.
        share: From 0 to 1, drawn as a meter; None: no meter.
    """

    label: str
    value: str
    note: str = ""
    share: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of a page.

    Attributes:
        title: Its heading; plain text.
        html: What it says.
        chart: Drawn below; None: no chart.
        folded: Whether it is closed at first.
    """

    title: str
    html: str = ""
    chart: Chart | None = None
    folded: bool = False


def chart_library() -> str:
    """Return the text of plotly.js.

    Raises:
        ConfigurationError: plotly is not installed; the message says how to.
    """
    try:
        offline = importlib.import_module("plotly.offline")
    except ImportError as error:
        raise ConfigurationError(
            "a report needs plotly, which is not installed: pip install 'coinfer[report]'"
        ) from error
    library: str = offline.get_plotlyjs()
    return library


def page(
    title: str,
    sections: Sequence[Section],
    *,
    facts: Iterable[str],
    tiles: Iterable[Tile],
    warnings: Sequence[str],
    colours: Mapping[str, str],
    library: str,
) -> str:
    """Make the whole page.

    Args:
        title: In large letters; plain text.
        sections: In this order.
        facts: Short facts beside the title; plain text.
        tiles: Figures in large digits.
        warnings: What a reader must know before believing the figures; plain text.
        colours: `{model: colour}`, the legend of all charts.
        library: The text of plotly.js.
    """
    charts = [section.chart.to_json() for section in sections if section.chart is not None]
    return "\n".join(
        (
            _HEAD,
            f"<title>{escaped(title)}</title>",
            f"<style>\n{_asset('page.css')}</style>\n</head>\n<body>",
            f'<header><h1>{escaped(title)}</h1><ul class="facts">{_items(facts)}</ul></header>',
            f'<div class="tiles">{"".join(map(_tile, tiles))}</div>',
            *([f'<ul class="warnings">{_items(warnings)}</ul>'] if warnings else []),
            _legend(colours),
            "<main>",
            *map(_section, sections),
            "</main>",
            "<footer>Written by coinfer. This page needs no network; charts by plotly.js.</footer>",
            f"<script>{library}</script>",
            f'<script type="application/json" id="charts">{_embedded(charts)}</script>',
            f"<script>\n{_asset('page.js')}</script>\n</body>\n</html>\n",
        )
    )


def _asset(name: str) -> str:
    return resources.files("coinfer.report").joinpath("assets", name).read_text("utf-8")


def _embedded(data: object) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _items(texts: Iterable[str]) -> str:
    return "".join(f"<li>{escaped(text)}</li>" for text in texts)


def _legend(colours: Mapping[str, str]) -> str:
    """The colours of the models; a button hides or shows its model in all charts."""
    if not colours:
        return ""
    buttons = "".join(
        f'<button type="button" aria-pressed="true" data-model="{escaped(model)}">'
        f'<i class="dot" style="background:{colour}"></i>{escaped(model)}</button>'
        for model, colour in colours.items()
    )
    return (
        '<nav class="legend" aria-label="Models"><span>Models</span>'
        f"{buttons}<small>click to hide or show</small></nav>"
    )


def _tile(tile: Tile) -> str:
    meter = ""
    if tile.share is not None:
        width = 100 * min(1.0, max(0.0, tile.share))
        meter = f'<div class="meter"><div style="width:{width:.1f}%"></div></div>'
    return (
        f'<div class="tile"><h2>{escaped(tile.label)}</h2>'
        f'<p class="value">{escaped(tile.value)}</p>{meter}<p>{escaped(tile.note)}</p></div>'
    )


def _section(section: Section) -> str:
    body = section.html + ("" if section.chart is None else _chart(section.chart))
    if section.folded:
        return (
            f'<details class="card"><summary><h2>{escaped(section.title)}</h2></summary>'
            f"{body}</details>"
        )
    return f'<section class="card"><h2>{escaped(section.title)}</h2>{body}</section>'


def _chart(chart: Chart) -> str:
    buttons = "".join(
        f'<button type="button" aria-pressed="{"false" if i else "true"}" data-view="{i}">'
        f"{escaped(view.label)}</button>"
        for i, view in enumerate(chart.views)
    )
    views = (
        f'<div class="views" data-chart="{chart.id}">{buttons}'
        f'<p class="note">{escaped(chart.views[0].note)}</p></div>'
        if chart.views
        else ""
    )
    return (
        f'<p class="caption">{chart.caption}</p>{views}'
        f'<div class="chart" id="{chart.id}" style="height:{chart.height}px" role="img" '
        f'aria-label="{escaped(chart.title)}"></div>'
    )
