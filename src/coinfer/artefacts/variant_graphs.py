"""Variant graphs: the graphs of cheaper variants that were made, kept until plans are saved.

Each is a file that is named after its content, with a small one beside it that says what it is of.
They cost minutes to make, so no limit removes them: `coinfer cache rm` does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coinfer.cache_folder import cache_folder
from coinfer.documents.writing import replace_file

__all__ = ["VariantGraph", "keep_variant", "variant_graphs"]

_LARGEST_NOTE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantGraph:
    """A graph that is kept.

    Attributes:
        path: Its file.
        model: Of which model it is a variant; empty if nobody knows.
        kind: Of which kind it is, such as `compressed`; empty likewise.
        size: Bytes on the disk.
        made_s: When it was written, in seconds since the epoch.
    """

    path: Path
    model: str
    kind: str
    size: int
    made_s: float

    @property
    def digest(self) -> str:
        """The SHA-256 of its content, as its name says it."""
        return self.path.stem

    def problem(self) -> str:
        """Read it; return what is wrong with it, or an empty text."""
        try:
            found = hashlib.sha256(self.path.read_bytes()).hexdigest()
        except OSError as error:
            return error.strerror or str(error)
        return "" if found == self.digest else "its content is not what it was"

    def remove(self) -> None:
        """Remove it.

        Raises:
            OSError: it cannot be removed.
        """
        self.path.unlink(missing_ok=True)
        _note(self.path).unlink(missing_ok=True)


def keep_variant(data: bytes, model: str, kind: str) -> Path:
    """Keep a graph; return its file.

    Raises:
        OSError: it cannot be written.
    """
    path = _folder() / f"{hashlib.sha256(data).hexdigest()}.onnx"
    if not path.is_file() or path.stat().st_size != len(data):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data)
    with suppress(OSError):  # it is for people only
        replace_file(_note(path), json.dumps({"model": model, "kind": kind}))
    return path


def variant_graphs() -> list[VariantGraph]:
    """List what is kept, what was made last first."""
    found = []
    with suppress(OSError):
        for path in _folder().glob("*.onnx"):
            with suppress(OSError):  # it was removed meanwhile
                status, note = path.stat(), _read(_note(path))
                found.append(
                    VariantGraph(
                        path=path,
                        model=str(note.get("model", "")),
                        kind=str(note.get("kind", "")),
                        size=status.st_size,
                        made_s=status.st_mtime,
                    )
                )
    return sorted(found, key=lambda each: (-each.made_s, each.digest))


def _folder() -> Path:
    return cache_folder() / "variants"


def _note(path: Path) -> Path:
    return path.with_suffix(".json")


def _read(path: Path) -> Mapping[str, Any]:
    """Read what a graph is of; nothing if that is not known."""
    try:
        with path.open("rb") as file:
            note = json.loads(file.read(_LARGEST_NOTE))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}
