"""Column child: the process in which processors are reviewed beside an engine that works."""

from __future__ import annotations

from collections.abc import Callable
from subprocess import Popen
from typing import Any

from coinfer.errors import CoinferError
from coinfer.experiments.review_child import answer_with, found_by_child
from coinfer.planner.column_review import ColumnAdvice, ColumnReview, review_columns

__all__ = ["columns_reviewed", "main"]


def columns_reviewed(
    asked: ColumnReview, limit_s: float, started: Callable[[Popen[bytes]], None] = lambda _: None
) -> ColumnAdvice:
    """Review in a child process of the lowest priority, of one thread.

    Args:
        asked: What is to be found out.
        limit_s: Seconds that it may take; the process is killed then.
        started: Gets the process as soon as it is there: whoever kills it ends the wait.

    Raises:
        PolicyError: the process failed, was killed or took too long, or the policy failed in it.
    """
    found = found_by_child("coinfer.planner.column_child", asked, limit_s, started)
    columns = {name: (tuple(at), tuple(why)) for name, (at, why) in found["columns"].items()}
    return ColumnAdvice(columns, found["rates"], found["why"], found["simulated"])


def main() -> None:
    """Do what the standard input says."""
    answer_with(_answer)


def _answer(asked: ColumnReview) -> dict[str, Any]:
    try:
        return {"refused": "", **review_columns(asked)._asdict()}
    except CoinferError as error:
        return {"refused": " ".join(str(error).split()) or type(error).__name__}
