"""Fingerprints of files, kept beside the profiles: to compute one, the whole graph must be built.

A file counts as unchanged if its size, its time of change and its place on the disk are the same,
as for git; a file that was just written is not kept, since it could be written once more within the
clock's precision. Models with weights in other files are computed each time.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from coinfer.model import Model
from coinfer.model.fingerprint import Fingerprint
from coinfer.profiling.cache import ProfileCache
from coinfer.profiling.identity import identity

__all__ = ["fingerprint_of"]

_SETTLED_S = 2.0
"""A file that changed less long ago may change again unnoticed."""


def fingerprint_of(model: Model, cache: ProfileCache | None) -> Fingerprint:
    """Return a model's fingerprint, computed only if its file is new or has changed.

    Raises:
        ModelError: as of `Model.fingerprint`.
    """
    path = _kept_at(model, cache)
    if path is None:
        return model.fingerprint
    try:
        structure, weights = json.loads(path.read_text())
        model.content.know(Fingerprint(str(structure), str(weights)))
    except (OSError, ValueError, TypeError):
        found = model.fingerprint
        _keep(path, found)
    return model.fingerprint


def _kept_at(model: Model, cache: ProfileCache | None) -> Path | None:
    if cache is None or not cache.reads or model.source is None or not model.content.is_one_file:
        return None
    try:
        path = model.source.resolve()
        stat = path.stat()
    except OSError:
        return None
    if time.time() - stat.st_mtime < _SETTLED_S:
        return None
    key = {"path": os.fspath(path), "stat": [stat.st_size, stat.st_mtime_ns, stat.st_ino]}
    return cache.folder.parent / "fingerprints" / f"{identity(key)}.json"


def _keep(path: Path, found: Fingerprint) -> None:
    scratch = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(json.dumps([found.structure, found.weights]))
        scratch.replace(path)
    except OSError:
        return
