"""Catalogue: which versions of which models are served now. One change is one step for readers."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from coinfer.errors import UnknownNameError
from coinfer.server.served_model import ServedModel

__all__ = ["Catalogue", "Entry"]


class Entry(NamedTuple):
    """One model with its versions.

    Attributes:
        versions: By number, the oldest first.
        newest: The one that serves requests which name no version.
    """

    versions: Mapping[str, ServedModel]
    newest: ServedModel


class Catalogue:
    """The models that are served. Any thread reads, and sees all of a change or none of it.

    >>> from coinfer.testing.models import tiny_linear
    >>> from coinfer.server.served_model import served
    >>> catalogue = Catalogue([served("m", tiny_linear().model)])
    >>> catalogue.find("m").version
    '1'
    """

    def __init__(self, models: Iterable[ServedModel] = ()) -> None:
        self._entries: dict[str, Entry] = {}
        self._changing = threading.Lock()
        for model in models:
            self.add(model)

    def __iter__(self) -> Iterator[ServedModel]:
        """Return all versions of all models."""
        for entry in self._entries.values():
            yield from entry.versions.values()

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def find(self, name: str, version: str = "") -> ServedModel:
        """Return a version of a model; without one, the newest.

        Raises:
            UnknownNameError: it is not served.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise UnknownNameError.of("model", name, self._entries)
        if not version:
            return entry.newest
        found = entry.versions.get(version)
        if found is None:
            raise UnknownNameError.of(f"version of model {name!r}", version, entry.versions)
        return found

    def versions(self, name: str) -> list[str]:
        """Return the numbers of the versions of a model, the oldest first.

        Raises:
            UnknownNameError: it is not served.
        """
        self.find(name)
        return list(self._entries[name].versions)

    def add(self, model: ServedModel) -> None:
        """Serve a version from now on, in place of another one of the same number."""
        with self._changing:
            old = self._entries.get(model.name)
            self._put({**(old.versions if old else {}), model.version: model}, model.name)

    def remove(self, model: ServedModel) -> None:
        """Do not serve a version any longer; that it is not there is fine."""
        with self._changing:
            old = self._entries.get(model.name)
            kept = {n: m for n, m in (old.versions if old else {}).items() if m != model}
            self._put(kept, model.name)

    def replace(self, name: str, models: Iterable[ServedModel]) -> None:
        """Serve these versions of a model, and no other ones, in one step."""
        with self._changing:
            self._put({model.version: model for model in models}, name)

    def _put(self, versions: Mapping[str, ServedModel], name: str) -> None:
        entries = dict(self._entries)
        entries.pop(name, None)
        if versions:
            ordered = {v: versions[v] for v in sorted(versions, key=_number)}
            entries[name] = Entry(ordered, next(reversed(ordered.values())))
        self._entries = entries


def _number(version: str) -> tuple[int, str]:
    return (int(version) if version.isdecimal() else -1, version)
