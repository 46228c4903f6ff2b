"""Checked files: what was read of a file that follows the rules, so that it is read only once.

To parse a file and check it against the rules of ONNX takes several times as long as to read its
bytes. A file counts as unchanged if the system says the same of it as when it was checked: size,
times and place on the disk, as for git. One that had just changed then is not remembered, since it
could change once more within the clock's precision. Nor is one with weights in other files, with
defaults, or with open dimensions beside the batch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from coinfer.cache_folder import cache_folder
from coinfer.documents.raw import parse_json, read_bytes
from coinfer.documents.writing import is_special, replace_file
from coinfer.errors import CoinferError
from coinfer.model.content import FileState, Summary
from coinfer.model.specs import TensorSpec

__all__ = ["Checked", "recall", "remember"]

_FORMAT = 1
"""Raised when more is checked, or more is known of a file."""

_SETTLED_NS = 2 * 10**9
"""A file that changed less long ago may change again unnoticed."""


class Checked(NamedTuple):
    """What is known of a file.

    Attributes:
        summary: What the graph is made of.
        metadata: The model's properties.
        inputs: Specs of the inputs.
        outputs: Specs of the outputs.
    """

    summary: Summary
    metadata: Mapping[str, str]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def recall(state: FileState | None) -> Checked | None:
    """Return what is known of a file; None if that is nothing, or it cannot be read."""
    try:
        path = _path(state)
        if path is None:
            return None
        if not path.is_file():
            return None  # to read a FIFO would wait for ever
        digest, text = read_bytes(path).decode().split("\n", 1)
        if digest != _digest(text):
            return None
        data = parse_json(text)
        operators, elements, weight_bytes = data["summary"]
        summary = Summary(frozenset(operators), elements, weight_bytes)
        inputs, outputs = (tuple(map(_spec, data[key])) for key in ("inputs", "outputs"))
        return Checked(summary, data["metadata"], inputs, outputs)
    except (CoinferError, OSError, ValueError, TypeError, KeyError):
        return None


def remember(state: FileState | None, checked: Checked) -> None:
    """Keep what is known of a file, where that can be kept."""
    with suppress(CoinferError, OSError):
        path = _path(state)
        if path is None:
            return
        summary = checked.summary
        text = json.dumps(
            {
                "summary": [
                    sorted(summary.op_types),
                    dict(summary.weight_elements),
                    summary.weight_bytes,
                ],
                "metadata": dict(checked.metadata),
                "inputs": [_written(spec) for spec in checked.inputs],
                "outputs": [_written(spec) for spec in checked.outputs],
            }
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        if is_special(path):
            path.unlink()
        replace_file(path, f"{_digest(text)}\n{text}")


def _path(state: FileState | None) -> Path | None:
    if state is None:
        return None
    if state.read_ns - max(state.written_ns, state.changed_ns) < _SETTLED_NS:
        return None
    key = [_FORMAT, _onnx_version(), *state[:-1]]
    return cache_folder() / "checked" / _digest(json.dumps(key))


@cache
def _onnx_version() -> str:
    """Return the version of what checks files; importing that takes longer."""
    return version("onnx")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _written(spec: TensorSpec) -> list[object]:
    return [spec.name, spec.dtype.name, list(spec.shape), spec.rank_known]


def _spec(data: Any) -> TensorSpec:
    name, dtype, shape, rank_known = data
    return TensorSpec(name=name, dtype=np.dtype(dtype), shape=tuple(shape), rank_known=rank_known)
