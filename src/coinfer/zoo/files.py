"""Write zoo networks to files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import onnx_ir as ir

from coinfer.graph.saving import save_graph
from coinfer.zoo.registry import build, spec

__all__ = ["export"]


def export(
    names: Iterable[str], directory: str | Path, *, seed: int = 0, as_repository: bool = False
) -> list[Path]:
    """Write each network to `directory/NAME.onnx`, replacing what is there.

    A reader of the directory sees either the old file or the whole new one.

    Args:
        names: Networks; all are looked up before the first is written.
        directory: Made if it does not exist.
        seed: Decides the weights.
        as_repository: Write to `directory/NAME/1/model.onnx` instead, as servers take models.

    Returns:
        The files, in the order of `names`.

    Raises:
        UnknownNameError: no network of one of the names.
        OSError: the directory cannot be written.
    """
    target = Path(directory)
    entries = [spec(name) for name in names]
    place = "{}/1/model.onnx" if as_repository else "{}.onnx"
    return [
        _write(build(entry.name, seed=seed), target / place.format(entry.name)) for entry in entries
    ]


def _write(model: ir.Model, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_graph(model, path)
    return path
