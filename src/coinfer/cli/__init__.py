"""The command line: one file per verb. Parses, builds, calls, prints; decides nothing."""

from __future__ import annotations

from coinfer.cli.app import main

__all__ = ["main"]
