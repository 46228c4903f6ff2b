"""Binding: inputs and outputs of a session at fixed places in a GPU's memory.

A CUDA graph reads and writes the addresses that it was recorded with. So a binding keeps its
buffers as long as it lives, and whoever records with it keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coinfer.backends.base import Tensor
from coinfer.backends.onnxruntime.library import ort

__all__ = ["LAUNCHED", "Binding", "run_options"]

LAUNCHED = -1
"""In place of a graph's number: the run launches each kernel, and records and repeats nothing."""

_CUDA = "cuda"
"""What onnxruntime's Python calls the memory of NVIDIA GPUs."""


class Binding:
    """Inputs and outputs of one size.

    Args:
        session: The library's session.
        outputs: Names of its outputs.
        feed: Inputs of that size.
        number: Which GPU.
    """

    def __init__(
        self, session: Any, outputs: Sequence[str], feed: Mapping[str, Tensor], number: int
    ) -> None:
        self._session = session
        self._outputs = tuple(outputs)
        self._bound = session.io_binding()
        self._inputs = {}
        for name, array in feed.items():
            self._inputs[name] = ort.OrtValue.ortvalue_from_numpy(_whole(array), _CUDA, number)
            self._bound.bind_ortvalue_input(name, self._inputs[name])
        for name in self._outputs:
            self._bound.bind_output(name, _CUDA, number)
        self._made: list[Any] = []

    def fill(self, feed: Mapping[str, Tensor]) -> None:
        """Copy inputs to where they are read."""
        for name, buffer in self._inputs.items():
            buffer.update_inplace(_whole(feed[name]))

    def run(self, options: Any) -> None:
        """Compute all outputs; they are complete when it returns."""
        self._session.run_with_iobinding(self._bound, options)

    def fix_outputs(self) -> None:
        """Let later runs write where the last one did."""
        self._made = list(self._bound.get_outputs())
        for name, value in zip(self._outputs, self._made, strict=True):
            self._bound.bind_ortvalue_output(name, value)

    def to_host(self) -> list[Tensor]:
        """Return the outputs of the last run as arrays that belong to the caller."""
        return [*self._bound.copy_outputs_to_cpu()]


def run_options(graph: int = LAUNCHED, *, shrinks: int | None = None) -> Any:
    """Return the options of a run.

    Args:
        graph: Number of the CUDA graph that it repeats, or records if there is none.
        shrinks: Which GPU's memory to give back after it, as far as nothing lives there. A graph
            that was recorded before must not be repeated then: it uses that memory.
    """
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(graph))
    if shrinks is not None:
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", f"gpu:{shrinks}")
    return options


def _whole(array: Tensor) -> Tensor:
    return np.require(array, requirements="C")
