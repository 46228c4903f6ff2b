"""Profile cache: measurements on disk, keyed by all that changes them (`identity`).

A changed structure, an update of a library or another machine measures anew; a renamed model or
processor does not. How thoroughly it was measured is kept beside each measurement: it serves
whoever asks for as much or less.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from coinfer.cache_folder import VARIABLE, cache_folder
from coinfer.documents.raw import parse_json, read_bytes
from coinfer.documents.writing import replace_file
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.profiling.identity import identity

__all__ = ["ProfileCache", "default_cache"]

T = TypeVar("T")

_SAME = ProfileKey("model", "processor")

_log = logging.getLogger(__name__)

_warned: set[Path] = set()
"""What was warned of."""


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

        A damaged file counts as not measured; see `read`.

        Args:
            parts: The key.
            effort: Numbers of which each is the larger the more was measured.
        """
        if not self.reads:
            return None
        found = self.read(self.path(parts), _measurement)
        return found[0] if found is not None and _reaches(found[1], effort) else None

    def put(
        self,
        parts: Mapping[str, object],
        measurement: Measurement,
        effort: tuple[float, ...] = (),
    ) -> None:
        """Keep a measurement and its effort, in the place of what was there.

        A folder that cannot be written is no error: there is no cache, and one warning says so.
        """
        data = {**Profile({_SAME: measurement}).to_json(), "effort": effort}
        self.write(self.path(parts), data)

    def read(self, path: Path, decode: Callable[[Any], T]) -> T | None:
        """Return what a file of the cache holds, or None if it is not there or is damaged.

        Of a folder's damaged files the first is warned of.

        Args:
            path: The file.
            decode: Makes the value of what the file's JSON is; raises what it likes.
        """
        try:
            _check_regular(path)
            return decode(parse_json(read_bytes(path)))
        except FileNotFoundError:
            return None
        except Exception as error:  # noqa: BLE001 - anything may stand in a damaged file
            _warn_once(
                self.folder,
                f"{path} of the cache is damaged ({_reason(error)}): what it held, and what other "
                "damaged files there held, is measured again",
            )
            return None

    def write(self, path: Path, data: object) -> None:
        """Write a file of the cache as JSON; where that fails, warn once and go on."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _check_regular(path)
            replace_file(path, json.dumps(data))
        except OSError as error:
            _warn_once(
                self.folder / "(unwritable)",
                f"the cache {self.folder} cannot be written ({_reason(error)}): what is measured "
                f"now will be measured again next time; {VARIABLE} names another folder",
            )


def _check_regular(path: Path) -> None:
    """Refuse what may have no end, or wait for somebody, such as a FIFO.

    Raises:
        OSError: there is something, and it is no regular file.
    """
    if os.path.lexists(path) and not path.is_file():
        raise OSError(errno.EINVAL, f"{path.name} is no regular file")


def _reaches(made_with: tuple[float, ...], asked: tuple[float, ...]) -> bool:
    return len(made_with) == len(asked) and all(
        made >= wanted for made, wanted in zip(made_with, asked, strict=True)
    )


def _measurement(data: Any) -> tuple[Measurement, tuple[float, ...]]:
    return Profile.from_json(data).entries[_SAME], tuple(float(each) for each in data["effort"])


def _reason(error: Exception) -> str:
    text = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return " ".join(text.split())


def _warn_once(about: Path, text: str) -> None:
    if about not in _warned:
        _warned.add(about)
        _log.warning("%s", text)


def default_cache() -> ProfileCache:
    """Return the cache of measurements in the user's cache folder."""
    return ProfileCache(cache_folder() / "profiles")
