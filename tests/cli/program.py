"""Run the program in this process and look at what it prints and how it exits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from coinfer.cli import main

TINY = """\
name: tiny
models:
  cnn: {source: "zoo:tiny_cnn", deadline: 1s}
  mlp: "zoo:tiny_mlp"
arrivals:
  cnn: {poisson: 100/s}
  mlp: {closed: 2}
duration: 0.3s
warmup: 0.05s
"""
"""A scenario that runs in no time."""


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line on stderr of a program that failed and printed nothing else."""
        assert self.status != 0, self
        assert self.out == "", self
        [line] = self.err.splitlines()
        assert line.startswith("coinfer: "), self
        assert "Traceback" not in line
        return line.removeprefix("coinfer: ")


class Program:
    def __init__(self, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        self._capsys = capsys
        self.folder = folder

    def __call__(self, *arguments: str | Path) -> Outcome:
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main([str(argument) for argument in arguments])
        captured = self._capsys.readouterr()
        code = exit_.value.code
        return Outcome(code if isinstance(code, int) else 0, captured.out, captured.err)

    def scenario(self, text: str = TINY, name: str = "scenario.yaml") -> Path:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path
