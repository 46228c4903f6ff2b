"""Write a file in one step: readers see the old file or the new one, never a part of it."""

from __future__ import annotations

from pathlib import Path

__all__ = ["replace_file"]


def replace_file(path: Path, data: str | bytes) -> None:
    """Write a file, a text in UTF-8, into a folder that is there.

    Raises:
        OSError: it cannot be written.
    """
    scratch = path.with_name(path.name + ".part")
    scratch.write_bytes(data.encode() if isinstance(data, str) else data)
    scratch.replace(path)
