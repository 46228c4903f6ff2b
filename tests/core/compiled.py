"""Compiled: what tests cannot do in a build of which the core is compiled."""

from __future__ import annotations

import pytest

import coinfer.core.residency

__all__ = ["only_plain"]

only_plain = pytest.mark.skipif(
    not str(coinfer.core.residency.__file__).endswith(".py"),
    reason="it replaces methods or fields of the core, which a compiled build does not look up",
)
