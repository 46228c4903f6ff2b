"""A store with small artefacts that no library made."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from coinfer.artefacts import ArtefactStore, Lease, Made

KIB = 1024


def parts_of(name: str) -> dict[str, object]:
    return {"name": name}


def writing(data: bytes, log: list[str] | None = None) -> Callable[[Path], Made]:
    def make(folder: Path) -> Made:
        if log is not None:
            log.append("made")
        (folder / "weights.bin").write_bytes(data)
        return Made({"takes": {"x": 3}})

    return make


def ensure(
    store: ArtefactStore,
    name: str = "a",
    make: Callable[[Path], Made] | None = None,
    **more: object,
) -> Mapping[str, object]:
    values: dict[str, object] = {
        "model": name,
        "expected_bytes": KIB,
        "patience_s": 20.0,
        **more,
    }
    parts = parts_of(name)
    store.ensure(parts, make or writing(name.encode() * KIB), **values)  # type: ignore[arg-type]
    return parts


def opened(store: ArtefactStore, name: str = "a") -> Lease:
    lease = store.open(parts_of(name))
    assert lease is not None
    return lease


def age(store: ArtefactStore, name: str, seconds: float) -> None:
    """Let an artefact look as if it was used so long ago."""
    folder = store.path(parts_of(name))
    moment = folder.stat().st_mtime - seconds
    os.utime(folder, (moment, moment))
