"""Write zoo networks to files."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx_ir as ir

from coinfer.documents.writing import replace_file, replacing
from coinfer.model.validation import tensors_of
from coinfer.zoo.registry import build, spec

__all__ = ["export"]

_EXTERNAL_DATA_BYTES = 1536 * 2**20
"""Above this, weights go into a file of their own: a protobuf file must stay below 2 GiB."""


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
    if sum(tensor.nbytes for tensor in tensors_of(model)) <= _EXTERNAL_DATA_BYTES:
        replace_file(path, ir.to_proto(model).SerializeToString())
        return path
    external = f"{path.name}.data"
    with TemporaryDirectory(prefix=f".{name}-", dir=directory) as temporary:
        ir.save(model, Path(temporary) / path.name, external_data=external)
        for written in (external, path.name):
            with (
                (Path(temporary) / written).open("rb") as old,
                replacing(directory / written) as new,
            ):
                shutil.copyfileobj(old, new)
    return path
