"""Write zoo networks to files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import onnx_ir as ir

from coinfer.graph.saving import save_graph
from coinfer.zoo.registry import build, spec

__all__ = ["export"]


def export(names: Iterable[str], directory: str | Path, *, seed: int = 0) -> list[Path]:
    """Write each network to `directory/NAME.onnx`, replacing what is there.

    A reader of the directory sees either the old file or the whole new one.

    Args:
        names: Networks; all are looked up before the first is written.
        directory: Made if it does not exist.
        seed: Decides the weights.

    Returns:
        The files, in the order of `names`.

    Raises:
        UnknownNameError: no network of one of the names.
        OSError: the directory cannot be written.
    """
    target = Path(directory)
    entries = [spec(name) for name in names]
    target.mkdir(parents=True, exist_ok=True)
    return [_write(build(entry.name, seed=seed), entry.name, target) for entry in entries]


def _write(model: ir.Model, name: str, directory: Path) -> Path:
    path = directory / f"{name}.onnx"
    save_graph(model, path)
    return path
