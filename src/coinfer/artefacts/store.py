"""ArtefactStore: a folder of artefacts with a limit. Any number of processes may use it at once.

An artefact is written into a folder of another name, which is renamed once all of it is on the
disk. So a crash leaves the whole of it or a rest that nobody opens; rests are removed after a
while. What is not as it was written is removed with one warning, and made again by whoever wants
it next. A folder that cannot be written, or a full disk, is no error: there is no artefact then.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from coinfer.artefacts.artefact import Artefact, DamagedError, Lease, StoredFile
from coinfer.artefacts.locks import Locked, alone, exclusive, shared
from coinfer.documents.digest import digest_of
from coinfer.units import format_bytes

__all__ = ["ArtefactStore", "Entry", "Made", "MakeError"]

_NAME = re.compile(r"[0-9a-f]{32}")
_PART = ".part"
_STALE_S = 3600.0
"""What was begun longer ago was left by a process that crashed."""

_SPARE_BYTES = 256 * 2**20
"""A disk is not filled further than this by artefacts."""

_log = logging.getLogger(__name__)
_warned: set[tuple[Path, str]] = set()
"""What was warned of."""


class MakeError(Exception):
    """An artefact could not be made now; another time it may. The message says why."""


class Made(NamedTuple):
    """What came of making an artefact.

    Attributes:
        facts: What the backend wants to know of it when it opens it; values for JSON.
        refused: Why none can be made of this model, ever; empty if one was made.
    """

    facts: Mapping[str, Any] = {}
    refused: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A folder of the store.

    Attributes:
        digest: Its name.
        artefact: Its manifest; None if that is damaged.
        size: Bytes on the disk.
        used_s: When it was last opened, in seconds since the epoch.
        in_use: Whether some process uses it now.
    """

    digest: str
    artefact: Artefact | None
    size: int
    used_s: float
    in_use: bool


@dataclass(frozen=True, slots=True)
class ArtefactStore:
    """Artefacts by the digests of their keys.

    Attributes:
        folder: Where they are; it need not be there.
        limit_bytes: How much they may take; those unused for longest go first. 0: there are none.
    """

    folder: Path
    limit_bytes: int

    def path(self, parts: Mapping[str, object]) -> Path:
        """Return the folder of an artefact."""
        return self.folder / digest_of(parts)

    def open(self, parts: Mapping[str, object]) -> Lease | None:
        """Open an artefact; None if there is none that can be used."""
        lease = self._opened(parts)
        if lease is not None and lease.artefact.refused:
            lease.close()
            return None
        return lease

    def knows(self, parts: Mapping[str, object]) -> bool:
        """Whether there is an artefact, or is known that there can be none."""
        lease = self._opened(parts)
        if lease is not None:
            lease.close()
        return lease is not None

    def ensure(
        self,
        parts: Mapping[str, object],
        make: Callable[[Path], Made],
        *,
        model: str,
        expected_bytes: int,
        patience_s: float,
        is_over: Callable[[], object] = lambda: False,
    ) -> None:
        """Make an artefact unless it is there; where that fails, warn once and go on.

        Args:
            parts: Its key: all that it depends on, as values for JSON.
            make: Writes its files into an empty folder; raises `MakeError` if it cannot.
            model: Name of the model, for people.
            expected_bytes: What it will take at most, as good as that is known.
            patience_s: How long to wait while another process makes it.
            is_over: Whether nobody wants it any more; then it is not waited for.
        """
        if self.knows(parts):
            return
        if expected_bytes > self.limit_bytes:
            if self.limit_bytes:
                self._warn(
                    "large",
                    f"model {model!r} may take more than the limit of artefacts, "
                    f"{format_bytes(self.limit_bytes)}: it is prepared at each start",
                )
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.path(parts)
            lock = path.with_name(f".{path.name}.lock")
            with alone(
                lock, patience_s=patience_s, waits=lambda: path.exists() or is_over()
            ) as is_mine:
                if is_mine and not is_over() and not self.knows(parts):
                    self._make(path, parts, make, model, expected_bytes)
        except (OSError, MakeError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or str(error)
            self._warn(
                "unwritable",
                f"no artefact of model {model!r} in {self.folder} ({reason}): what is not kept "
                "there is prepared at each start, and held by each process for itself",
            )

    def discard(self, lease: Lease, why: str) -> None:
        """Remove an artefact that cannot be used, with a warning."""
        self._remove_damaged(lease.folder, lease.locked, why)
        lease.close()

    def entries(self) -> list[Entry]:
        """List what is there, what was used last first."""
        found = [entry for folder in self._folders() if (entry := _entry(folder)) is not None]
        return sorted(found, key=lambda entry: (-entry.used_s, entry.digest))

    def remove(self, digest: str) -> bool:
        """Remove an artefact; return whether it is gone, which it is not while it is used.

        Raises:
            OSError: it cannot be removed.
        """
        return _removed(self.folder / digest)

    def remove_damaged(self, digest: str) -> None:
        """Remove an artefact that nobody should open, used or not; what cannot be removed stays."""
        with suppress(OSError):
            _removed(self.folder / digest, also_used=True)

    def verify(self, digest: str) -> str:
        """Read an artefact; return what is wrong with it, or an empty text."""
        folder = self.folder / digest
        try:
            artefact = Artefact.read(folder)
            if artefact.digest != digest:
                return "it is another one than its name says"
            if artefact.check(folder, thorough=True):
                with suppress(OSError):
                    artefact.restamped(folder).write(folder)
        except (DamagedError, OSError) as error:
            return str(error)
        return ""

    def trim(self, *, room: int = 0) -> None:
        """Remove rests, and what was not used for longest until this many bytes have room.

        What some process uses stays.
        """
        self._remove_rests()
        entries = self.entries()
        total = room + sum(entry.size for entry in entries)
        for entry in reversed(entries):
            if total <= self.limit_bytes:
                return
            with suppress(OSError):
                if self.remove(entry.digest):
                    total -= entry.size

    def _opened(self, parts: Mapping[str, object]) -> Lease | None:
        if not self.limit_bytes:
            return None
        folder = self.path(parts)
        try:
            locked = shared(folder)
        except OSError:
            return None
        try:
            artefact = Artefact.read(folder)
            if artefact.digest != folder.name:
                raise DamagedError("it is another one than its name says")
            if artefact.check(folder):
                artefact = artefact.restamped(folder)
                with suppress(OSError):  # of another user: then it is read each time
                    artefact.write(folder)
        except FileNotFoundError as error:
            self._remove_damaged(folder, locked, f"{error.filename} is missing")
            locked.close()
            return None
        except DamagedError as error:
            self._remove_damaged(folder, locked, str(error))
            locked.close()
            return None
        except OSError:  # e.g. too many open files: that says nothing of the artefact
            locked.close()
            return None
        with suppress(OSError):
            os.utime(folder)
        return Lease(artefact, folder, locked)

    def _make(
        self,
        path: Path,
        parts: Mapping[str, object],
        make: Callable[[Path], Made],
        model: str,
        expected_bytes: int,
    ) -> None:
        self.trim(room=expected_bytes)
        free = shutil.disk_usage(self.folder).free
        if free < expected_bytes + _SPARE_BYTES:
            raise MakeError(f"only {format_bytes(free)} are free on the disk")
        scratch = self.folder / f".{path.name}.{os.getpid()}-{secrets.token_hex(6)}{_PART}"
        started = time.monotonic()
        try:
            scratch.mkdir(mode=0o700)
            made = make(scratch)
            files = {} if made.refused else {f.name: StoredFile.of(f) for f in scratch.iterdir()}
            artefact = Artefact(
                parts=parts,
                model=model,
                facts=made.facts,
                refused=made.refused,
                made_s=time.monotonic() - started,
                files=files,
            )
            for left in scratch.iterdir():
                if left.name not in files:
                    left.unlink()
            artefact.write(scratch)
            for each in (*scratch.iterdir(), scratch):
                _to_disk(each)
            with suppress(OSError):  # there is nothing, or a folder
                path.unlink()
            with suppress(OSError):  # another one was put there meanwhile: it is as good
                scratch.rename(path)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _folders(self) -> Iterator[Path]:
        with suppress(OSError):
            yield from (path for path in self.folder.iterdir() if _NAME.fullmatch(path.name))

    def _remove_rests(self) -> None:
        now = time.time()
        with suppress(OSError):
            for path in self.folder.iterdir():
                if not (path.name.startswith(".") and path.name.endswith(_PART)):
                    continue
                with suppress(OSError):
                    if now - path.stat().st_mtime > _STALE_S:
                        shutil.rmtree(path, ignore_errors=True)

    def _remove_damaged(self, folder: Path, locked: Locked, why: str) -> None:
        """Remove the folder that is locked; one that was put in its place meanwhile stays."""
        try:
            if not locked.is_of(folder):
                return
        except OSError:  # somebody else removed it
            return
        self._warn(
            "damaged",
            f"artefact {folder} is damaged ({' '.join(why.split())}): it, and others there that "
            "are, is made again",
        )
        self.remove_damaged(folder.name)

    def _warn(self, about: str, text: str) -> None:
        if (self.folder, about) not in _warned:
            _warned.add((self.folder, about))
            _log.warning("%s", text)


def _entry(folder: Path) -> Entry | None:
    try:
        artefact: Artefact | None = Artefact.read(folder)
    except (DamagedError, OSError):
        artefact = None
    try:
        sizes = [path.stat().st_size for path in folder.iterdir()]
        used_s = folder.stat().st_mtime
        lock = exclusive(folder)
    except OSError:  # it was removed meanwhile
        return None
    if lock is not None:
        lock.close()
    return Entry(
        digest=folder.name,
        artefact=artefact,
        size=sum(sizes),
        used_s=used_s,
        in_use=lock is None,
    )


def _removed(folder: Path, *, also_used: bool = False) -> bool:
    """Remove a folder: under another name first, so that nobody finds a part of it.

    Who has mapped its files keeps them until it lets go.
    """
    lock = exclusive(folder)
    if lock is None and not also_used:
        return False
    try:
        aside = folder.with_name(f".{folder.name}.{os.getpid()}-{secrets.token_hex(6)}{_PART}")
        folder.rename(aside)
        shutil.rmtree(aside)
    finally:
        if lock is not None:
            lock.close()
    return True


def _to_disk(path: Path) -> None:
    if os.name != "posix":  # folders cannot be opened there
        return
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
