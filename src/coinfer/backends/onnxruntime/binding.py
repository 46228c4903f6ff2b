"""Binding: inputs and outputs of a session at fixed places in a GPU's memory.

A CUDA graph reads and writes the addresses that it was recorded with. So a binding keeps its
buffers as long as it lives, and whoever records with it keeps it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from coinfer.backends.base import Tensor
from coinfer.backends.onnxruntime.gpu import Gpu
from coinfer.backends.onnxruntime.gpu_value import GpuValue, on_gpu
from coinfer.backends.onnxruntime.library import ort

__all__ = ["LAUNCHED", "Binding", "run_options"]

LAUNCHED = -1
"""In place of a graph's number: the run launches each kernel, and records and repeats nothing."""


class Binding:
    """Inputs and outputs of one size.

    Args:
        session: The library's session.
        outputs: Names of its outputs.
        feed: Inputs of that size.
        gpu: Where its device is.
    """

    def __init__(
        self,
        session: Any,
        outputs: Sequence[str],
        feed: Mapping[str, Tensor | GpuValue],
        gpu: Gpu,
    ) -> None:
        self._session = session
        self._outputs = tuple(outputs)
        self._gpu = gpu
        self._bound = session.io_binding()
        self._inputs: dict[str, Any] = {}
        for name, value in feed.items():
            array = np.zeros(value.shape, value.dtype) if isinstance(value, GpuValue) else value
            self._inputs[name] = on_gpu(array, gpu)
            self._bound.bind_ortvalue_input(name, self._inputs[name])
        for name in self._outputs:
            self._bound.bind_output(name, "cuda", gpu.number)
        self._made: list[Any] = []
        self.fill({name: each for name, each in feed.items() if isinstance(each, GpuValue)})

    def fill(self, feed: Mapping[str, Tensor | GpuValue]) -> None:
        """Copy inputs to where they are read."""
        for name, value in feed.items():
            if isinstance(value, GpuValue):
                value.copy_to(self._inputs[name])
            else:
                self._inputs[name].update_inplace(np.require(value, requirements="C"))

    def run(self, options: Any) -> None:
        """Compute all outputs; they are complete when it returns."""
        self._session.run_with_iobinding(self._bound, options)

    def fix_outputs(self) -> None:
        """Let later runs write where the last one did."""
        self._made = list(self._bound.get_outputs())
        for name, value in zip(self._outputs, self._made, strict=True):
            self._bound.bind_ortvalue_output(name, value)

    def outputs(self, keep: Collection[int] = ()) -> list[Tensor | GpuValue]:
        """Return the outputs of the last run, which belong to the caller.

        Args:
            keep: Positions of those that stay on the GPU; the others are arrays.
        """
        if not keep:
            return [*self._bound.copy_outputs_to_cpu()]
        found: list[Tensor | GpuValue] = []
        for at, made in enumerate(self._bound.get_outputs()):
            value = GpuValue.of(made, self._gpu)
            found.append(value.copy_inside() if at in keep else value.array())
        return found


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
