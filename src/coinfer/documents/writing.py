"""Write files in one step: readers see the old ones or the new ones, never a part of them.

Every file that coinfer writes goes through here, but for the log of a run, which must be there when
the run crashes. A link is followed, as `open` does. What is no regular file, such as `/dev/stdout`,
a FIFO or a device, is written to and never replaced.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

__all__ = ["check_can_write", "is_special", "replace_file", "replace_folder", "replacing"]

_TAKEN = (errno.EEXIST, errno.ENOTEMPTY)

_TRIES = 100
"""Several writers of one folder take turns; each needs few."""

_DESCRIPTORS = ("/proc/", "/dev/fd/")
"""Where names are those of open files: `/dev/stdout` leads there."""

_MOST_LINKS = 40


def replace_file(path: Path, data: str | bytes) -> None:
    """Write a file, a text in UTF-8, into a folder that is there.

    Raises:
        OSError: it cannot be written.
    """
    with replacing(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of the one at a path once all is written.

    If writing ends with an error or an interrupt, what was there stays. The permissions of what was
    there are kept.

    Raises:
        OSError: it cannot be written.
    """
    status = _status(path)
    if is_special(path):
        # Appended, as the shell may have sent `/dev/stdout` to a file that others write to as well.
        number = os.open(path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_NOCTTY", 0))
        with os.fdopen(number, "wb") as file:
            yield file
        return
    target = Path(os.path.realpath(path))
    if status is not None and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    scratch = _beside(target)
    try:
        with scratch.open("xb") as file:
            if status is not None:
                _keep_permissions(scratch, status)
            yield file
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)


def check_can_write(path: Path) -> None:
    """Find out whether `replacing` could write a file, and leave all as it is.

    Raises:
        OSError: it could not.
    """
    if is_special(path):
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return
    target = Path(os.path.realpath(path))
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    scratch = _beside(target)
    try:
        scratch.open("xb").close()
    finally:
        scratch.unlink(missing_ok=True)


def is_special(path: Path) -> bool:
    """Tell whether a path leads to what can be written to, but not replaced.

    Raises:
        OSError: the system cannot say what it leads to.
    """
    status = _status(path)
    if status is None:
        return False
    return not stat.S_ISREG(status.st_mode) or _is_descriptor(path)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _is_descriptor(path: Path) -> bool:
    here = path.absolute()
    for _ in range(_MOST_LINKS):
        folder = here.parent.resolve()
        if f"{folder}/".startswith(_DESCRIPTORS):
            return True
        if not here.is_symlink():
            return False
        here = folder / here.readlink()
    return False


def _keep_permissions(new: Path, old: os.stat_result) -> None:
    if hasattr(os, "chown"):
        with suppress(OSError):  # the file of another user: nobody but root may give files away
            os.chown(new, old.st_uid, old.st_gid)
    new.chmod(stat.S_IMODE(old.st_mode))


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
        scratch.mkdir()
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
