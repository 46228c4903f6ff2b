"""Profile cache: measurements on disk, keyed by all that changes them (`identity`).

A changed structure, an update of a library or another machine measures anew; a renamed model or
processor does not.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from coinfer.errors import ConfigurationError
from coinfer.profiles import Measurement, Profile, ProfileKey
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

    def get(self, parts: Mapping[str, object]) -> Measurement | None:
        """Return what was measured, or None. A damaged file counts as not measured."""
        if not self.reads:
            return None
        try:
            return Profile.load(self.path(parts)).entries.get(_SAME)
        except ConfigurationError:
            return None

    def put(self, parts: Mapping[str, object], measurement: Measurement) -> None:
        """Keep a measurement. A folder that cannot be written is no error: there is no cache."""
        try:
            Profile({_SAME: measurement}).save(self.path(parts))
        except OSError:
            return


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
