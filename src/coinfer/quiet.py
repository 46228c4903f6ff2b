"""Quiet: keep what a library tells its developers away from our users."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

__all__ = ["hushed", "quiet"]


@contextmanager
def hushed(logger: str | None, level: int) -> Iterator[None]:
    """Show of a logger only what is as bad as a level.

    Args:
        logger: Its name; None: the root.
        level: Of `logging`.
    """
    found = logging.getLogger(logger)
    before = found.level
    found.setLevel(level)
    try:
        yield
    finally:
        found.setLevel(before)


@contextmanager
def quiet(logger: str | None, level: int) -> Iterator[None]:
    """Show no warnings, nothing that is printed, and of a logger only what is as bad as a level.

    What other threads print meanwhile is not shown either.

    Args:
        logger: Its name; None: the root.
        level: Of `logging`.
    """
    with hushed(logger, level), warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
