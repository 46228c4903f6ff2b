"""Load the model that a text names: a file or `zoo:NAME`. Knows no backend."""

from __future__ import annotations

import os
import re
from pathlib import Path

from coinfer.errors import ModelError
from coinfer.model import Model, load_model, model_from_ir

__all__ = ["lasting_source", "resolve_model"]

_ZOO = "zoo:"
_ZOO_SOURCE = re.compile(r"zoo:(?P<network>[^?]+)(\?seed=(?P<seed>[0-9]+))?")


def resolve_model(
    source: str,
    *,
    name: str | None = None,
    base: Path | None = None,
    seed: int = 0,
    data_root: Path | None = None,
) -> Model:
    """Build the zoo network or load the file that `source` names.

    Args:
        source: `zoo:resnet50`, `zoo:resnet50?seed=3`, or the path of an ONNX file.
        name: What requests and messages call the model; by default the network's name or the
            file's stem.
        base: Folder that a relative path starts from; the current one by default.
        seed: Seed of a zoo network's weights where `source` gives none.
        data_root: A folder in which links of a file may end, as for `load_model`.

    Raises:
        ModelError: the source is malformed, or the file cannot be used.
        UnknownNameError: the zoo has no such network.
    """
    if source.startswith(_ZOO):
        return _from_zoo(source, name, seed)
    if not source:
        raise ModelError("no model is named; give the path of an .onnx file or zoo:NAME")
    path = (base or Path()) / Path(source).expanduser()
    return load_model(path, name=name, data_root=data_root)


def lasting_source(source: str | Path) -> str:
    """Write a source so that it means the same when the current folder is another one.

    >>> lasting_source("zoo:lenet"), lasting_source("/models/a.onnx")
    ('zoo:lenet', '/models/a.onnx')
    """
    text = os.fspath(source)
    return text if text.startswith(_ZOO) else os.fspath(Path(text).expanduser().absolute())


def _from_zoo(source: str, name: str | None, seed: int) -> Model:
    match = _ZOO_SOURCE.fullmatch(source)
    if match is None:
        raise ModelError(
            f"model source {source!r} is malformed; write zoo:NAME or zoo:NAME?seed=NUMBER"
        )
    from coinfer import zoo  # building networks needs the heavy libraries

    network = match["network"]
    graph = zoo.build(network, seed=seed if match["seed"] is None else int(match["seed"]))
    return model_from_ir(graph, name=name or network)
