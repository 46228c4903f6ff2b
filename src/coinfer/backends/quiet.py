"""Quiet: keep what a library tells its developers away from our users."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

__all__ = ["quiet"]


@contextmanager
def quiet(logger: str | None, level: int) -> Iterator[None]:
    """Show no warnings, nothing that is printed, and of a logger only what is as bad as a level.

    Args:
        logger: Its name; None: the root.
        level: Of `logging`.
    """
    found = logging.getLogger(logger)
    before = found.level
    found.setLevel(level)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        found.setLevel(before)
