"""Fingerprints of files, kept beside the profiles: to compute one, the whole graph must be built.

A file counts as unchanged if the system says the same of it as when its content was read: size,
times and place on the disk, as for git. A file that had just changed then is not kept, since it
could change once more within the clock's precision. Models with weights in other files are
computed each time.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from coinfer.documents.reading import parse_json, read_bytes
from coinfer.documents.writing import replace_file
from coinfer.model import Model
from coinfer.model.fingerprint import ALGORITHM, Fingerprint
from coinfer.profiling.cache import ProfileCache
from coinfer.profiling.identity import identity

__all__ = ["fingerprint_of"]

_SETTLED_NS = 2 * 10**9
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
        structure, weights = parse_json(read_bytes(path))
        model.content.know(Fingerprint(str(structure), str(weights)))
    except (OSError, ValueError, TypeError):
        found = model.fingerprint
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, json.dumps([found.structure, found.weights]))
    return model.fingerprint


def _kept_at(model: Model, cache: ProfileCache | None) -> Path | None:
    state = model.content.file_state
    if cache is None or not cache.reads or state is None:
        return None
    if state.read_ns - max(state.written_ns, state.changed_ns) < _SETTLED_NS:
        return None
    same = {"algorithm": ALGORITHM, **state._asdict()}
    del same["read_ns"]
    return cache.folder.parent / "fingerprints" / f"{identity(same)}.json"
