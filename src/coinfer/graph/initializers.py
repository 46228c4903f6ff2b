"""Initializers: add constants to a graph under names that are free, and drop unused ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

__all__ = ["Initializers"]


class Initializers:
    """The constants of one graph, which is changed in place.

    While it is used, others give no names there.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._taken: set[str | None] = set()
        for each in (graph, *graph.subgraphs()):
            made = (value for node in each for value in node.outputs)
            values = (*each.inputs, *each.initializers.values(), *made)
            self._taken.update(value.name for value in values)

    def free(self, name: str) -> str:
        """Take a name; a number is added if it is taken."""
        number, free = 0, name
        while free in self._taken:
            number += 1
            free = f"{name}.{number}"
        self._taken.add(free)
        return free

    def add(self, name: str, array: npt.NDArray[Any]) -> ir.Value:
        """Store an array under a name like this one."""
        name = self.free(name)
        tensor = ir.tensor(np.ascontiguousarray(array).reshape(array.shape), name=name)
        value = ir.val(name, tensor.dtype, array.shape, const_value=tensor)
        self._graph.register_initializer(value)
        return value

    def drop_unused(self, values: Iterable[ir.Value]) -> None:
        """Forget those of these constants that nobody reads, also such that `Constant` nodes hold.

        What else makes a value stays, whoever reads it: others may want to look at it.
        """
        for value in values:
            if value.uses() or value.is_graph_output() or value.is_graph_input():
                continue
            node = value.producer()
            if value.is_initializer():
                self._graph.initializers.pop(str(value.name), None)
            elif node is not None and node.op_type == "Constant" and node.graph is self._graph:
                self._graph.remove(node, safe=True)
