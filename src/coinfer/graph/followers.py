"""Followers: the values of a graph that depend on some of its inputs. Computes none of them."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from coinfer.graph.operators import inlined, read_values

__all__ = ["followers"]


def followers(model: ir.Model, names: Iterable[str]) -> frozenset[str]:
    """Return the names of these values and of all that is computed from them.

    Also of what depends on their sizes only. Functions of the model are looked into.

    >>> model = ir.from_onnx_text('''<ir_version: 10, opset_import: ["": 20]>
    ... g (float[n, 3] x, float[3] w) => (float[n, 3] y)
    ... { s = Shape(x)  v = Neg(w)  y = Mul(x, v) }''')
    >>> sorted(followers(model, ["x"]))
    ['s', 'x', 'y']
    """
    graph = inlined(model).graph
    names = set(names)
    found = {value for value in graph.inputs if value.name in names}
    for node in graph:
        if not found.isdisjoint(read_values(node)):
            found.update(node.outputs)
    return frozenset(value.name for value in found if value.name)
