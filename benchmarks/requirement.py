"""Requirement: a figure that must be reached, and the one that was. Measures nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table

__all__ = ["Requirement", "print_requirements"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One figure.

    Attributes:
        what: What the figure is.
        value: What was measured; None if it cannot be measured here.
        required: The limit.
        at_most: Whether the limit is an upper one.
        unit: Follows the figures.
        remark: Why there is no value, or what a reader must know about it.
    """

    what: str
    value: float | None
    required: float
    at_most: bool = False
    unit: str = "x"
    remark: str = ""

    @property
    def is_missed(self) -> bool:
        """Whether it was measured and not reached."""
        if self.value is None:
            return False
        return self.value > self.required if self.at_most else self.value < self.required

    @property
    def verdict(self) -> str:
        """In one word, if it was measured."""
        if self.value is None:
            return "not measured"
        return "missed" if self.is_missed else "met"


def print_requirements(console: Console, requirements: Sequence[Requirement]) -> int:
    """Print required, measured and verdict; return the exit status, 1 if one is missed."""
    table = Table(box=box.SIMPLE_HEAD, highlight=False)
    for header, justify in (
        ("requirement", "left"),
        ("required", "right"),
        ("measured", "right"),
        ("", "left"),
        ("remark", "left"),
    ):
        table.add_column(header, justify=justify, no_wrap=header != "remark")
    styles = {"met": "green", "missed": "bold red", "not measured": "dim"}
    for each in requirements:
        measured = "-" if each.value is None else _figure(each.value, each.unit)
        table.add_row(
            each.what,
            f"{'<=' if each.at_most else '>='} {_figure(each.required, each.unit)}",
            measured,
            f"[{styles[each.verdict]}]{each.verdict}[/]",
            each.remark,
        )
    console.print(table)
    return int(any(each.is_missed for each in requirements))


def _figure(value: float, unit: str) -> str:
    # Two decimals would show 0.9796 as 0.98, and then as missed: nobody would understand.
    digits = f"{value:.3f}".rstrip("0").rstrip(".") if abs(value) < 100 else f"{value:,.0f}"
    return f"{digits}{unit}"
