"""The command line: one file per command. Commands parse, call and print; they decide nothing."""

from __future__ import annotations

from coinfer.cli.app import main

__all__ = ["main"]
