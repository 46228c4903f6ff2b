"""Case: files in a folder and one command on them. Knows no mutation and runs nothing."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Case"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One command of the product, to be run in a folder of files.

    Attributes:
        kind: What was mutated, e.g. `onnx`.
        seed: With the kind, all that the case is drawn from.
        folder: Where its files are, and where it may write.
        arguments: The command, without `coinfer`; or a call of `fuzz.api_calls`.
        may_take_long: It may rightly run for long, and must end when interrupted.
    """

    kind: str
    seed: str
    folder: Path
    arguments: tuple[str, ...]
    may_take_long: bool = False

    @property
    def name(self) -> str:
        """What finds the case again."""
        return f"{self.kind}:{self.seed}"

    @property
    def command(self) -> str:
        """The command as a shell takes it."""
        return shlex.join(("coinfer", *self.arguments))
