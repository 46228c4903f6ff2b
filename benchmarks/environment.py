"""The line about the machine that stands above every table."""

from __future__ import annotations

from rich.console import Console

from coinfer.hardware.environment import describe

__all__ = ["print_environment"]


def print_environment(console: Console) -> None:
    """Print processor, cores, memory and versions."""
    facts = describe()
    console.print(
        "machine: " + ", ".join(f"{key} {value}" for key, value in facts.items() if value),
        highlight=False,
        markup=False,
    )
