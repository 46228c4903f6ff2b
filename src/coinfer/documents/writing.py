"""Write files in one step: readers see the old ones or the new ones, never a part of them."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

__all__ = ["replace_file", "replace_folder"]

_TAKEN = (errno.EEXIST, errno.ENOTEMPTY)

_TRIES = 100
"""Several writers of one folder take turns; each needs few."""


def replace_file(path: Path, data: str | bytes) -> None:
    """Write a file, a text in UTF-8, into a folder that is there.

    Raises:
        OSError: it cannot be written.
    """
    scratch = _beside(path)
    try:
        scratch.write_bytes(data.encode() if isinstance(data, str) else data)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def replace_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder that holds these files and nothing else; its parents are made.

    It is written beside and put in place at the end. If several write it at once, one wins. A
    folder that may not be moved, as it is a disk of its own or the current one, is written file by
    file, the last one last.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    folder = folder.resolve()
    if not _can_be_moved(folder):
        _write_inside(folder, files)
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = _beside(folder)
    try:
        _write(scratch, files, Path.write_bytes)
        with suppress(FileNotFoundError):
            shutil.copymode(folder, scratch)
        _put(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _can_be_moved(folder: Path) -> bool:
    if not folder.exists():
        return True
    here = Path.cwd().is_relative_to(folder)
    return not here and not os.path.ismount(folder) and os.access(folder.parent, os.W_OK)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name[:50]}.{os.getpid()}-{secrets.token_hex(6)}.part")


def _write(
    folder: Path, files: Mapping[str, bytes], write: Callable[[Path, bytes], object]
) -> None:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, data)


def _put(new: Path, folder: Path) -> None:
    """Rename a folder to where another one may be, also while others do the same."""
    for _ in range(_TRIES - 1):
        if _renamed(new, folder):
            return
    new.rename(folder)


def _renamed(new: Path, folder: Path) -> bool:
    """Rename a folder unless its place is taken again; if that fails, put back what was there."""
    aside = _beside(folder)
    with suppress(FileNotFoundError):
        folder.rename(aside)
    try:
        new.rename(folder)
        is_taken = False
    except BaseException as error:
        is_taken = isinstance(error, OSError) and error.errno in _TAKEN
        if not is_taken:
            with suppress(OSError):
                aside.rename(folder)
            raise
    shutil.rmtree(aside, ignore_errors=True)
    return not is_taken


def _write_inside(folder: Path, files: Mapping[str, bytes]) -> None:
    _write(folder, files, replace_file)
    wanted = {folder / name for name in files}
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in wanted:
            path.unlink()
