"""The pages of the documentation and the blocks of code in them. Runs nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
"""What users read: every command in it is executed."""

FOR_CONTRIBUTORS = (
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "benchmarks" / "README.md",
)
"""What contributors read: links, paths and targets of `make` are checked."""

_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block: where it is, its language, its text."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path, *languages: str) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page=page,
            line=text.count("\n", 0, match.start()) + 1,
            language=match["language"],
            text=match["text"],
        )
        for match in _FENCE.finditer(text)
        if match["language"] in languages
    ]


def commands(page: Path) -> list[str]:
    """Commands of a page: lines of `sh` blocks, and lines after `$ ` in `console` blocks."""
    found = []
    for block in blocks(page, "console", "sh"):
        for line in block.text.splitlines():
            command = line.removeprefix("$ ") if block.language == "console" else line
            if command.strip() and (block.language == "sh" or line.startswith("$ ")):
                found.append(command.strip())
    return found


def without_code(page: Path) -> str:
    return _FENCE.sub("", page.read_text(encoding="utf-8"))
