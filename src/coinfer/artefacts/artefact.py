"""Artefact: a folder with the files of one prepared model, and a manifest that says what they are.

The manifest has a digest of itself and, of each file, its SHA-256 and what the system said of it
when that was computed: size, times and place on the disk. While the system says the same the file
was not written, as for git, and opening an artefact reads none of it. Otherwise, as in a copied
cache, the digests decide.
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from coinfer.artefacts.locks import Locked
from coinfer.documents.digest import digest_of
from coinfer.documents.raw import parse_json, read_bytes
from coinfer.documents.writing import replace_file

__all__ = ["MANIFEST", "Artefact", "DamagedError", "Lease", "StoredFile"]

MANIFEST = "manifest.json"
_FORMAT = "coinfer-artefact/1"

_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "parts": dict,
    "model": str,
    "facts": dict,
    "refused": str,
    "made_s": (int, float),
}
"""Of what a manifest says beside the files."""


class DamagedError(Exception):
    """An artefact is not what was written. The message says in half a sentence why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """What the manifest says of a file.

    Attributes:
        size: Bytes.
        sha256: Hex digest.
        state: What the system said of it when the digest was computed.
    """

    size: int
    sha256: str
    state: Sequence[int]

    @classmethod
    def of(cls, path: Path) -> Self:
        """Read a file and describe it."""
        state = _state(path)
        return cls(size=path.stat().st_size, sha256=_sha256(path), state=state)


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """The manifest of one.

    Attributes:
        parts: All that it depends on: its key.
        model: Name of the model that it was made for, for people.
        facts: What the backend wants to know of it when it opens it.
        refused: Why there is none, and none is to be made; empty if there is one.
        made_s: Seconds that making it took.
        files: By name.
    """

    parts: Mapping[str, object]
    model: str
    facts: Mapping[str, Any]
    refused: str
    made_s: float
    files: Mapping[str, StoredFile]

    @property
    def digest(self) -> str:
        """Name of its folder."""
        return digest_of(self.parts)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the manifest of a folder.

        Raises:
            OSError: there is none, or it cannot be read now.
            DamagedError: it is not what was written.
        """
        try:
            _state(folder / MANIFEST)  # to open a FIFO would wait for ever
            data = parse_json(read_bytes(folder / MANIFEST))
            digest = data.pop("digest")
            if data["format"] != _FORMAT or digest != digest_of(data):
                raise DamagedError("its manifest was changed")
            files = {name: StoredFile(**each) for name, each in data["files"].items()}
            kept = {key: data[key] for key in _KINDS}
            if wrong := [key for key, kind in _KINDS.items() if not isinstance(kept[key], kind)]:
                raise DamagedError(f"{wrong[0]} in its manifest is of another kind")
            if not all(isinstance(each.state, list) for each in files.values()):
                raise DamagedError("the state of a file in its manifest is of another kind")
            if any(Path(name).name != name for name in files):
                raise DamagedError("its manifest names files elsewhere")
            return cls(**kept, files=files)
        except (DamagedError, OSError):
            raise
        except Exception as error:  # anything may stand in a damaged file
            raise DamagedError(f"its manifest cannot be read: {error}") from error

    def write(self, folder: Path) -> None:
        """Write the manifest into a folder.

        Raises:
            OSError: it cannot be written.
        """
        files = {
            name: {"size": each.size, "sha256": each.sha256, "state": list(each.state)}
            for name, each in self.files.items()
        }
        data: dict[str, object] = {
            "format": _FORMAT,
            "parts": self.parts,
            "model": self.model,
            "facts": self.facts,
            "refused": self.refused,
            "made_s": self.made_s,
            "files": files,
        }
        # What is read again is what JSON makes of it, e.g. lists of tuples.
        data = json.loads(json.dumps(data))
        replace_file(folder / MANIFEST, json.dumps({**data, "digest": digest_of(data)}))

    def check(self, folder: Path, *, thorough: bool = False) -> bool:
        """Find out whether the files are those that were written.

        Args:
            folder: Where they are.
            thorough: Read them, whatever the system says of them.

        Returns:
            Whether some file was read because the system says otherwise of it than before.

        Raises:
            DamagedError: one is missing or was changed.
        """
        changed = False
        for name, file in self.files.items():
            path = folder / name
            try:
                is_known = _state(path) == list(file.state)
                if path.stat().st_size != file.size:
                    raise DamagedError(f"{name} has another size")
                if (thorough or not is_known) and _sha256(path) != file.sha256:
                    raise DamagedError(f"{name} was changed")
            except FileNotFoundError as error:
                raise DamagedError(f"{name} is missing") from error
            changed = changed or not is_known
        return changed

    def restamped(self, folder: Path) -> Self:
        """Return it with what the system says of the files now; call it right after `check`."""
        files = {
            name: StoredFile(size=each.size, sha256=each.sha256, state=_state(folder / name))
            for name, each in self.files.items()
        }
        return replace(self, files=files)


class Lease:
    """An artefact in use: as long as it is held, no process evicts it.

    Attributes:
        artefact: Its manifest.
        folder: Where its files are.
        locked: What keeps it there.
    """

    def __init__(self, artefact: Artefact, folder: Path, locked: Locked) -> None:
        self.artefact = artefact
        self.folder = folder
        self.locked = locked

    def path(self, name: str) -> Path:
        """Return the path of a file."""
        return self.folder / name

    @property
    def files(self) -> tuple[Path, ...]:
        """The paths of all its files."""
        return tuple(self.path(name) for name in self.artefact.files)

    def close(self) -> None:
        """Let it be evicted; calling it twice is fine."""
        self.locked.close()


def _state(path: Path) -> list[int]:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise DamagedError(f"{path.name} is no file")
    return [
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    ]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
