"""Fingerprints of files, kept beside the profiles: to compute one, the whole graph must be built.

A file counts as unchanged if the system says the same of it as when its content was read: size,
times and place on the disk, as for git. A file that had just changed then is not kept, since it
could change once more within the clock's precision. Models with weights in other files are
computed each time.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from coinfer.model import Model
from coinfer.model.fingerprint import ALGORITHM, Fingerprint
from coinfer.profiling.cache import ProfileCache
from coinfer.profiling.identity import identity

__all__ = ["fingerprint_of"]

_DIGEST = re.compile(r"[0-9a-f]{16,128}")

_SETTLED_NS = 2 * 10**9
"""A file that changed less long ago may change again unnoticed."""


def fingerprint_of(model: Model, cache: ProfileCache | None) -> Fingerprint:
    """Return a model's fingerprint, computed only if its file is new or has changed.

    Raises:
        ModelError: as of `Model.fingerprint`.
    """
    path = _kept_at(model, cache)
    if cache is None or path is None:
        return model.fingerprint
    kept = cache.read(path, _fingerprint)
    if kept is not None:
        model.content.know(kept)
    else:
        found = model.fingerprint
        cache.write(path, [found.structure, found.weights])
    return model.fingerprint


def _fingerprint(data: Any) -> Fingerprint:
    structure, weights = data
    if not all(isinstance(each, str) and _DIGEST.fullmatch(each) for each in data):
        raise ValueError("it holds no fingerprint")
    return Fingerprint(structure, weights)


def _kept_at(model: Model, cache: ProfileCache | None) -> Path | None:
    state = model.content.file_state
    if cache is None or not cache.reads or state is None:
        return None
    if state.read_ns - max(state.written_ns, state.changed_ns) < _SETTLED_NS:
        return None
    same = {"algorithm": ALGORITHM, **state._asdict()}
    del same["read_ns"]
    return cache.folder.parent / "fingerprints" / f"{identity(same)}.json"
