"""Corpus: cases that once fell, kept as files. `corpus/README.md` has their commands."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

from fuzz.case import Case

__all__ = ["CORPUS", "corpus_case"]

FOLDER = Path(__file__).parent / "corpus"
_ROW = re.compile(r"^\| `([\w-]+)` \| `coinfer ([^`]+)` \| .+ \|$", re.M)

CORPUS: dict[str, tuple[str, ...]] = {
    name: tuple(shlex.split(command))
    for name, command in _ROW.findall((FOLDER / "README.md").read_text())
}
"""Arguments by the name of the folder."""


def corpus_case(name: str, seeds: Path, folder: Path) -> Case:
    """Write the seeds into a folder, and over them the files of a case that fell."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(seeds / "base", folder)
    shutil.copytree(seeds / "results", folder, dirs_exist_ok=True)
    shutil.copytree(FOLDER / name, folder, dirs_exist_ok=True)
    return Case(kind="corpus", seed=name, folder=folder, arguments=CORPUS[name])
