"""Given samples: what a user measures with, as arrays, an .npz file or a folder of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from coinfer.backends.base import Tensors
from coinfer.errors import InputError
from coinfer.model import Model
from coinfer.workload.input_spec import ArrayInputs, ImageInputs
from coinfer.workload.inputs import prepare_feeds

__all__ = ["SampleSource", "read_samples"]

SampleSource: TypeAlias = (
    Mapping[str, npt.NDArray[Any]] | Sequence[Mapping[str, npt.NDArray[Any]]] | str | Path
)
"""Arrays by input name, several of these, an .npz file, or a folder of pictures."""


def read_samples(model: Model, source: SampleSource) -> Sequence[Tensors]:
    """Return samples, each of batch 1 where the model leaves that open.

    Args:
        model: What they are for.
        source: In an .npz file the first axis of each array counts the samples.

    Raises:
        InputError: they cannot be read, or do not fit the model.
        ConfigurationError: Pillow is needed for pictures and not installed.
    """
    if isinstance(source, str | Path):
        path = Path(source)
        if not path.exists():
            raise InputError(f"model {model.name!r}: there are no samples at {path}")
        spec = ImageInputs(images=path) if path.is_dir() else ArrayInputs(npz=path)
        return prepare_feeds(spec, model, batch=1, seed=0)
    feeds = [source] if isinstance(source, Mapping) else list(source)
    if not feeds:
        raise InputError(f"model {model.name!r}: there are no samples; give at least one")
    found = [{name: np.asarray(value) for name, value in feed.items()} for feed in feeds]
    for feed in found:
        model.check_inputs(feed)
    return found
