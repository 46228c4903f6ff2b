"""Profile cache: measurements on disk, keyed by all that changes them (`identity`).

A changed structure, an update of a library or another machine measures anew; a renamed model or
processor does not. How thoroughly it was measured is kept beside each measurement: it serves
whoever asks for as much or less.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from coinfer.documents.reading import parse_json, read_bytes
from coinfer.documents.writing import replace_file
from coinfer.errors import ConfigurationError
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.profiling.identity import identity

__all__ = ["ProfileCache", "default_cache"]

_SAME = ProfileKey("model", "processor")


@dataclass(frozen=True, slots=True)
class ProfileCache:
    """A folder with one small file per measurement.

    Attributes:
        folder: Where they are.
        reads: Whether what is there is used; if not, it is measured again and replaced.
    """

    folder: Path
    reads: bool = True

    def path(self, parts: Mapping[str, object]) -> Path:
        """Return the file for a key."""
        digest = identity(parts)
        return self.folder / digest[:2] / f"{digest}.json"

    def get(
        self, parts: Mapping[str, object], effort: tuple[float, ...] = ()
    ) -> Measurement | None:
        """Return what was measured with at least this effort, or None.

        A damaged file counts as not measured.

        Args:
            parts: The key.
            effort: Numbers of which each is the larger the more was measured.
        """
        if not self.reads:
            return None
        try:
            data = parse_json(read_bytes(self.path(parts)))
            measurement = Profile.from_json(data).entries.get(_SAME)
            made_with = tuple(float(amount) for amount in data["effort"])
        except (OSError, ValueError, TypeError, KeyError, ConfigurationError):
            return None
        return measurement if _reaches(made_with, effort) else None

    def put(
        self,
        parts: Mapping[str, object],
        measurement: Measurement,
        effort: tuple[float, ...] = (),
    ) -> None:
        """Keep a measurement and its effort, in the place of what was there.

        A folder that cannot be written is no error: there is no cache.
        """
        data = {**Profile({_SAME: measurement}).to_json(), "effort": effort}
        path = self.path(parts)
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, json.dumps(data))


def _reaches(made_with: tuple[float, ...], asked: tuple[float, ...]) -> bool:
    return len(made_with) == len(asked) and all(
        made >= wanted for made, wanted in zip(made_with, asked, strict=True)
    )


def default_cache() -> ProfileCache:
    """Return the user's cache: `$COINFER_CACHE`, or the system's place for caches."""
    given = os.environ.get("COINFER_CACHE")
    if given:
        return ProfileCache(Path(given) / "profiles")
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return ProfileCache(base / "coinfer" / "profiles")
