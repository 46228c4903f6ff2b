"""Filled session: runs a model of a fixed batch for any number of samples. Knows no library.

A file may say that it takes, say, four samples at a time. Where these were found to be a batch
(`coinfer.profiling.batch_axis`), requests bring as many as they like: what is free in a run is
filled with copies of the last sample, which is as valid as any, and its answers are cut off. More
samples than the file takes are several runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from coinfer.backends.base import (
    Placement,
    Session,
    Tensor,
    Tensors,
    device_bytes,
    files_of,
    note_of,
    reload_s,
)
from coinfer.model import Model

__all__ = ["FilledSession"]


class FilledSession:
    """A session of a model of a fixed batch that takes other numbers of samples.

    Args:
        session: What runs the file as it is.
        model: The model with its first axis opened: `Model.with_filling`.

    >>> from coinfer.backends.null import NullBackend
    >>> from coinfer.machine.processor import Processor
    >>> from coinfer.testing.models import fixed_batch
    >>> filed = fixed_batch().model
    >>> cpu = Processor(name="cpu", backend="null", units=frozenset({"core0"}))
    >>> session = FilledSession(NullBackend().load(filed, cpu), filed.with_filling(2))
    >>> session.run({"x": np.ones((5, 3), np.float32)})["y"].shape
    (5, 3)
    """

    def __init__(self, session: Session, model: Model) -> None:
        self._session, self._size = session, model.filling
        self._batched = model.input_check.batched
        self.note = note_of(session)

    @property
    def device_bytes(self) -> int:
        """What it holds of the memory of a device."""
        return device_bytes(self._session)

    @property
    def files(self) -> Sequence[Path]:
        """The files that it maps."""
        return files_of(self._session)

    @property
    def reload_s(self) -> float:
        """Seconds to load it once more."""
        return reload_s(self._session)

    def run(self, inputs: Tensors) -> dict[str, Tensor]:
        """Compute all outputs, each with as many samples as the inputs have."""
        count = next(len(inputs[name]) for name in inputs if name in self._batched)
        if count == self._size:
            return self._session.run(inputs)
        starts = range(0, max(count, 1), self._size)
        if not count:  # an empty batch has no sample to fill up with
            inputs = {n: self._blank(v) if n in self._batched else v for n, v in inputs.items()}
        runs = [self._session.run(self._filled(inputs, start)) for start in starts]
        return {name: self._cut([run[name] for run in runs], count) for name in runs[0]}

    def placement(self) -> Placement:
        """Tell where the operators really run."""
        return self._session.placement()

    def close(self) -> None:
        """Give the memory back."""
        self._session.close()

    def _filled(self, inputs: Tensors, start: int) -> Tensors:
        """Return the samples of one run, with copies of the last one where there are too few."""
        filled = {}
        for name, value in inputs.items():
            if name in self._batched:
                value = value[start : start + self._size]
                lacking = self._size - len(value)
                if lacking:
                    value = np.concatenate([value, np.repeat(value[-1:], lacking, axis=0)])
            filled[name] = value
        return filled

    def _blank(self, value: Tensor) -> Tensor:
        return np.zeros((1, *value.shape[1:]), value.dtype)

    def _cut(self, parts: Sequence[Tensor], count: int) -> Tensor:
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return np.ascontiguousarray(whole[:count])
