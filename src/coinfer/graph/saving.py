"""Save a graph as an ONNX file; large weights go into a file beside it. Checks no graph."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from coinfer.documents.writing import replace_file, replacing

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["save_graph"]

_EXTERNAL_DATA_BYTES = 1536 * 2**20
"""Above this, weights go into a file of their own: a protobuf file must stay below 2 GiB."""


def save_graph(model: ir.Model, path: Path) -> None:
    """Write a graph to a file, in one step; what was there is replaced.

    Weights of more than 1.5 GiB in all go to `PATH.data`.

    Raises:
        OSError: it cannot be written.
    """
    import onnx_ir as ir

    from coinfer.model.validation import tensors_of

    if sum(tensor.nbytes for tensor in tensors_of(model)) <= _EXTERNAL_DATA_BYTES:
        replace_file(path, ir.to_proto(model).SerializeToString())
        return
    external = f"{path.name}.data"
    with TemporaryDirectory(prefix=f".{path.stem}-", dir=path.parent) as temporary:
        ir.save(model, Path(temporary) / path.name, external_data=external)
        for written in (external, path.name):
            with (
                (Path(temporary) / written).open("rb") as old,
                replacing(path.with_name(written)) as new,
            ):
                shutil.copyfileobj(old, new)
