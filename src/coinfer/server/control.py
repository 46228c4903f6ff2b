"""RepositoryControl: loads and unloads models of a repository while others are served.

A new version is loaded beside the old one and warmed up. Then requests go to it, in one step. The
old one is unloaded when what was asked of it is answered, so no request is lost.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coinfer.api.engine import Engine
from coinfer.errors import CoinferError, NotOfferedError, UnknownNameError
from coinfer.server.model_folder import (
    ModelFolder,
    ModelVersion,
    Stamp,
    read_model_folder,
    repository_folders,
)
from coinfer.server.opening import opened_version, warm
from coinfer.server.served_model import ServedModel
from coinfer.server.service import Service

__all__ = ["RepositoryControl"]

_log = logging.getLogger(__name__)

_LOOK_S = 0.005
_DRAIN_S = 60.0


class RepositoryControl:
    """Keeps what is served as the repository has it, when it is told to. Any thread may call it.

    Args:
        service: What serves.
        engine: Where models are loaded.
        repositories: Folders of models.
        folders: What was loaded from there at the start.
        lenient: Ignore what of `config.pbtxt` is not followed.
    """

    def __init__(
        self,
        service: Service,
        engine: Engine,
        repositories: Sequence[Path],
        folders: Sequence[ModelFolder],
        *,
        lenient: bool = False,
    ) -> None:
        self._service = service
        self._engine = engine
        self._repositories = repositories
        self._lenient = lenient
        self._stamps = {folder.name: folder.stamp for folder in folders}
        self._loaded: dict[tuple[str, str], Stamp] = {
            (folder.name, version.version): version.stamp
            for folder in folders
            for version in folder.versions
        }
        self._failed: dict[str, str] = {}
        self._unloaded: set[str] = set()
        self._generation = 0
        self._changing = threading.Lock()

    def index(self) -> list[dict[str, str]]:
        """Return what there is: name, version, state and reason."""
        catalogue = self._service.catalogue
        found = [
            {"name": each.name, "version": each.version, "state": "READY", "reason": ""}
            for each in catalogue
        ]
        for name in repository_folders(self._repositories):
            if name not in catalogue:
                reason = self._failed.get(name, "unloaded" if name in self._unloaded else "")
                found.append(
                    {"name": name, "version": "", "state": "UNAVAILABLE", "reason": reason}
                )
        return found

    def load(self, name: str, parameters: Mapping[str, Any]) -> None:
        """Load a model, or the versions of it that are new or were changed.

        Raises:
            UnknownNameError: the repository has no such model.
            NotOfferedError: the parameters bring a configuration or files.
            CoinferError: it cannot be loaded; then what was served is served on.
        """
        if parameters:
            raise NotOfferedError(
                f"parameter {next(iter(parameters))[:80]!r} is not offered; put the model into "
                "the repository and load it without parameters"
            )
        with self._changing:
            folders = repository_folders(self._repositories)
            if name not in folders:
                raise UnknownNameError.of("model", name, folders, hint="They are in the repository")
            try:
                self._load(folders[name])
            except CoinferError as error:
                error.args = (self._without_paths(str(error)), *error.args[1:])
                raise
            self._unloaded.discard(name)

    def unload(self, name: str) -> None:
        """Unload all versions of a model once what was asked of them is answered.

        Raises:
            UnknownNameError: it is not loaded.
        """
        with self._changing:
            self._service.catalogue.find(name)
            self._replace(name, [])
            self._unloaded.add(name)

    def follow(self, stamps: dict[str, Stamp]) -> None:
        """Look at the repository once and take over what was changed and is at rest since.

        Args:
            stamps: What the last look found; it is kept up to date for the next one.
        """
        with self._changing:
            try:
                paths = repository_folders(self._repositories)
            except CoinferError as error:
                _log.warning("%s", error)
                return
            for name, path in paths.items():
                self._follow(name, path, stamps)
            for name in [each for each in self._stamps if each not in paths]:
                self._replace(name, [])

    def _follow(self, name: str, path: Path, stamps: dict[str, Stamp]) -> None:
        try:
            stamp = read_model_folder(path, lenient=self._lenient).stamp
        except (CoinferError, OSError) as error:
            # Perhaps it is being copied: say it once it has stayed like that.
            text = self._without_paths(str(error))
            if self._failed.get(name) != text and name in stamps and not stamps[name]:
                self._failed[name] = text
                _log.warning("model %r is served as it was: %s", name, error)
            stamps[name] = ()
            return
        is_at_rest = stamps.get(name) == stamp
        stamps[name] = stamp
        if name in self._unloaded or self._stamps.get(name) == stamp or not is_at_rest:
            return
        try:
            self._load(path)
        except (CoinferError, OSError) as error:
            self._stamps[name] = stamp  # not again before it is changed
            _log.warning("model %r is served as it was: %s", name, error)

    def _load(self, path: Path) -> None:
        """Load what is new of a model, let it take over, and unload what it replaces."""
        name = path.name
        self._service.ensembles.check_is_none(name)
        try:
            folder = read_model_folder(path, lenient=self._lenient)
            is_same = folder.stamp == self._stamps.get(name)
            models = self._versions(folder, is_same)
        except CoinferError as error:
            self._failed[name] = self._without_paths(str(error))
            raise
        self._failed.pop(name, None)
        self._stamps[name] = folder.stamp
        self._replace(name, models)
        self._loaded.update({(name, each.version): each.stamp for each in folder.versions})

    def _without_paths(self, text: str) -> str:
        """Return what clients may be told: where the repositories are is not theirs to know."""
        for repository in self._repositories:
            text = text.replace(f"{repository}/", "")
        return text

    def _versions(self, folder: ModelFolder, is_same: bool) -> list[ServedModel]:
        """Return all versions as they are served; if one cannot be loaded, none is loaded anew."""
        before = set(self._engine.models)
        try:
            return [self._version(folder, version, is_same) for version in folder.versions]
        except BaseException:
            for name in set(self._engine.models) - before:
                self._engine.unload(name)
            raise

    def _version(self, folder: ModelFolder, version: ModelVersion, is_same: bool) -> ServedModel:
        """Return a version as it is served, loaded anew if something of it was changed."""
        catalogue, key = self._service.catalogue, (folder.name, version.version)
        if self._loaded.get(key) == version.stamp and folder.name in catalogue:
            served = catalogue.find(*key)
            return served if is_same else opened_version(folder, version, served.engine_name)[1]
        self._generation += 1
        engine_name = f"{folder.name}/{version.version}"
        if engine_name in self._engine.models:
            engine_name = f"{engine_name}.{self._generation}"
        model, served = opened_version(folder, version, engine_name)
        self._engine.load(engine_name, model)
        warm(self._engine, {engine_name: model})
        _log.info("model %r: version %s is loaded", folder.name, version.version)
        return served

    def _replace(self, name: str, models: Sequence[ServedModel]) -> None:
        """Serve these versions of a model from now on, and unload the others."""
        catalogue = self._service.catalogue
        old = [each for each in catalogue if each.name == name]
        catalogue.replace(name, models)
        kept = {each.engine_name for each in models}
        for each in old:
            if each.engine_name not in kept:
                self._loaded.pop((name, each.version), None)
                self._retire(each)
        if not models:
            self._stamps.pop(name, None)

    def _retire(self, model: ServedModel) -> None:
        """Unload a version that no new request finds, when it has none left."""
        engine, name = self._engine, model.engine_name
        until_s = time.monotonic() + _DRAIN_S
        while time.monotonic() < until_s:
            self._service.hasten(model)
            if not self._service.is_submitting(model):  # then the engine has all that there is
                break
            time.sleep(_LOOK_S)
        engine.unload(name, drain=True, timeout_s=max(until_s - time.monotonic(), 0.0))
        self._service.forget(model)
        _log.info("model %r: version %s is unloaded", model.name, model.version)
