"""Palette: one colour per model and per kind of outcome, the same in every chart of a page.

The first eight colours for models are of equal weight on white and can be told apart with the
common forms of colour blindness (after Okabe and Ito, "Color Universal Design", 2008, without its
yellow, which is too light for lines, and with its vermilion kept for what went wrong).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import cycle

__all__ = ["GRID", "INK", "MISSES", "MUTED", "OUTCOME_COLOURS", "SHARE_SCALE", "model_colours"]

INK = "#1f2933"
MUTED = "#5f6b7a"
GRID = "#e4e7eb"

_MODELS = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#8c510a",
    "#5e4fa2",
    "#999933",
    "#004c76",
    "#a87400",
    "#006b4e",
    "#97527a",
    "#2f86b8",
    "#c98b4a",
    "#9b8fd0",
    "#66661f",
)

OUTCOME_COLOURS: Mapping[str, str] = {
    "in time": "#d3e2da",
    "late": "#f4a582",
    "dropped": "#b2182b",
    "rejected": "#67001f",
    "failed": "#1a1a1a",
    "cancelled": "#a3a9b1",
    "unfinished": "#6b7480",
}
"""By kind of answer; good is pale, so that what went wrong stands out. None is a model's colour."""

MISSES = tuple(OUTCOME_COLOURS)[1:]
"""Kinds of answers that are not in time; a summary has a figure of the same name for each."""

SHARE_SCALE = (
    (0.0, "#f7fbff"),
    (0.25, "#c6dbef"),
    (0.5, "#6baed6"),
    (0.75, "#2171b5"),
    (1.0, "#08306b"),
)
"""From idle to always busy: one hue that darkens, so that it also reads in grey."""


def model_colours(models: Iterable[str]) -> dict[str, str]:
    """Give each model its colour, by position; beyond sixteen models they repeat.

    >>> model_colours(["a", "b"])
    {'a': '#0072b2', 'b': '#e69f00'}
    """
    return dict(zip(models, cycle(_MODELS), strict=False))
