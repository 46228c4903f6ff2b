"""Builder: makes the fused graph, and gives each value in the layout that an operator wants.

Knows layouts, and no operator's rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from coinfer.graph.fusing.bundle import Bundle
from coinfer.graph.fusing.layout import AXIS, Layout
from coinfer.graph.fusing.site import Site

__all__ = ["Builder", "View"]

_SHAPES_AS_INPUTS = 13
"""From this opset on, axes and sizes of these operators are inputs and not attributes."""

_COUNTED_SPLIT = 18
"""From this opset on, `Split` into equal parts must say into how many."""


class View(NamedTuple):
    """How M values lie in one tensor: the layout, and whether the axis of M is merged."""

    layout: Layout
    is_merged: bool


class Builder:
    """The fused graph as far as it has been built.

    Args:
        names: Of the models.
        opset: The version of ONNX's own operators.
    """

    def __init__(self, names: Sequence[str], opset: int) -> None:
        self.names = tuple(names)
        self.opset = opset
        self.nodes: list[ir.Node] = []
        self.initializers: dict[str, ir.Value] = {}
        self._views: dict[Bundle, dict[View, ir.Value]] = {}
        self._parts: dict[Bundle, list[ir.Value | None]] = {}
        self._shared: dict[Bundle, ir.Value] = {}
        self._taken: set[str] = set()
        self._named: set[str] = set()

    @property
    def models(self) -> int:
        """How many models are fused."""
        return len(self.names)

    # names, constants and nodes

    def unique(self, name: str) -> str:
        """Take a name; a number is added if it is taken."""
        return _unique(name, self._taken)

    def initializer(self, tensor: ir.TensorProtocol, name: str) -> ir.Value:
        """Store a tensor."""
        name = self.unique(name)
        value = ir.val(name, tensor.dtype, list(tensor.shape.numpy()), const_value=tensor)
        self.initializers[name] = value
        return value

    def constant(self, array: Any, name: str = "constant") -> ir.Value:
        """Store an array; a list becomes int64."""
        if not isinstance(array, np.ndarray):
            array = np.array(array, np.int64)
        return self.initializer(ir.tensor(np.ascontiguousarray(array).reshape(array.shape)), name)

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        *,
        name: str,
        attributes: Iterable[ir.Attr] | Mapping[str, Any] = (),
        outputs: Sequence[str] | None = None,
        domain: str = "",
    ) -> list[ir.Value]:
        """Add an operator.

        Args:
            op_type: Its type.
            inputs: What it reads.
            name: Its name, and that of what it writes if `outputs` does not say.
            attributes: As they are, or as plain values by name.
            outputs: Names of what it writes; an empty one is left out.
            domain: Of the operator.
        """
        if isinstance(attributes, Mapping):
            attributes = ir.convenience.convert_attributes(attributes)
        made = [name] if outputs is None else list(outputs)
        values = [ir.val(self.unique(each) if each else "") for each in made]
        self.nodes.append(
            ir.Node(
                domain,
                op_type,
                inputs,
                tuple(attributes),
                outputs=values,
                name=_unique(name, self._named),
            )
        )
        return values

    def one(self, op_type: str, *inputs: ir.Value | None, name: str, **attributes: Any) -> ir.Value:
        """Add an operator that gives one value."""
        (made,) = self.node(op_type, inputs, name=name, attributes=attributes)
        return made

    def copy(self, site: Site, inputs: Sequence[ir.Value | None], **changed: Any) -> list[ir.Value]:
        """Add the operator of a site once, on other inputs and with other attributes.

        Args:
            site: The operator.
            inputs: What it is to read.
            changed: Attributes to replace; None leaves one out.
        """
        kept = [a for a in site.node.attributes.values() if a.name not in changed]
        new = {name: value for name, value in changed.items() if value is not None}
        attributes = [*kept, *ir.convenience.convert_attributes(new)]
        names = [value.name or "" for value in site.node.outputs]
        node = site.node
        return self.node(
            node.op_type,
            inputs,
            name=node.name or names[0],
            attributes=attributes,
            outputs=names,
            domain=node.domain,
        )

    # what is there

    def give(self, bundle: Bundle, value: ir.Value, view: View) -> None:
        """Say where the values of a bundle are."""
        self._views.setdefault(bundle, {})[view] = value

    def give_all(self, site: Site, values: Sequence[ir.Value], view: View) -> None:
        """Say where all outputs of a site are: in these values, all seen alike."""
        for bundle, value in zip(site.outputs, values, strict=True):
            if bundle is not None:
                self.give(bundle, value, view)

    def give_shared(self, bundle: Bundle, value: ir.Value) -> None:
        """Say where the one value of a bundle is that all models share."""
        self._shared[bundle] = value

    def give_part(self, bundle: Bundle, model: int, value: ir.Value) -> None:
        """Say where the value of one model is."""
        self._parts.setdefault(bundle, [None] * self.models)[model] = value

    # values as operators want them

    def shared(self, bundle: Bundle) -> ir.Value:
        """Return the one value that all models share."""
        if bundle not in self._shared:
            self._shared[bundle] = self._stored(bundle, 0, bundle.name)
        return self._shared[bundle]

    def part(self, bundle: Bundle, model: int) -> ir.Value:
        """Return the value of one model."""
        if bundle.is_shared:
            return self.shared(bundle)
        parts = self._parts.setdefault(bundle, [None] * self.models)
        if parts[model] is None:
            if bundle.is_stored:
                name = f"{self.names[model]}/{bundle.values[model].name}"
                parts[model] = self._stored(bundle, model, name)
            else:
                parts[:] = self._split(bundle)
        found = parts[model]
        assert found is not None
        return found

    def explicit(self, bundle: Bundle, layout: Layout, rank: int | None = None) -> ir.Value:
        """Return the values in one tensor with an axis of size M of its own.

        Args:
            bundle: The values.
            layout: Where the axis is.
            rank: Of one value: axes of size 1 are put in front of those that it has. Packed, only
                stored values can get some.
        """
        more = 0 if rank is None else rank - bundle.rank
        if not more:
            return self._view(bundle, View(layout, False))
        if bundle.is_stored:
            arrays = [each.reshape((1,) * more + each.shape) for each in bundle.arrays]
            return self.constant(np.stack(arrays, AXIS[layout]), bundle.name)
        value = self._view(bundle, View(layout, False))
        return self.unsqueeze(value, range(1, 1 + more), bundle.name)

    def merged(self, bundle: Bundle, layout: Layout) -> ir.Value:
        """Return the values in one tensor of their rank, with the axis of M merged."""
        return self._view(bundle, View(layout, True))

    def best(self, bundles: Sequence[Bundle], layout: Layout, *, can_merge: bool) -> View:
        """Choose the view in which operands need the least work; merged if all are equal.

        Args:
            bundles: What the operator reads and must be in this layout.
            layout: The layout.
            can_merge: Whether the operator works on merged operands.
        """
        explicit = View(layout, False)
        if not can_merge:
            return explicit
        there = [self._views.get(bundle, {}) for bundle in bundles]
        stays = [explicit in views and View(layout, True) not in views for views in there]
        return View(layout, not (any(stays) and all(stays)))

    def view(self, bundle: Bundle, view: View) -> ir.Value:
        """Return the values in a view."""
        return self._view(bundle, view)

    # small operators whose form depends on the opset

    def unsqueeze(self, value: ir.Value, axes: Iterable[int], name: str) -> ir.Value:
        """Add axes of size 1."""
        return self._with_axes("Unsqueeze", value, list(axes), name)

    def squeeze(self, value: ir.Value, axes: Iterable[int], name: str) -> ir.Value:
        """Remove axes of size 1."""
        return self._with_axes("Squeeze", value, list(axes), name)

    def _with_axes(self, op_type: str, value: ir.Value, axes: list[int], name: str) -> ir.Value:
        if self.opset < _SHAPES_AS_INPUTS:
            return self.one(op_type, value, name=name, axes=axes)
        return self.one(op_type, value, self.constant(axes, "axes"), name=name)

    def split(self, value: ir.Value, axis: int, names: Sequence[str]) -> list[ir.Value]:
        """Split into equal parts."""
        attributes: dict[str, Any] = {"axis": axis}
        if self.opset >= _COUNTED_SPLIT:
            attributes["num_outputs"] = len(names)
        name = self.unique("split")
        return self.node("Split", [value], name=name, attributes=attributes, outputs=names)

    def concat(self, values: Sequence[ir.Value], axis: int, name: str) -> ir.Value:
        """Join along an axis."""
        return self.one("Concat", *values, name=name, axis=axis)

    def reshape(self, value: ir.Value, shape: Sequence[int], name: str) -> ir.Value:
        """Reshape to numbers; 0 keeps a size, -1 takes what is left."""
        return self.one("Reshape", value, self.constant(list(shape), "shape"), name=name)

    # how views are made

    def _stored(self, bundle: Bundle, model: int, name: str) -> ir.Value:
        tensor = bundle.values[model].const_value
        assert tensor is not None
        return self.initializer(tensor, name)

    def _view(self, bundle: Bundle, view: View) -> ir.Value:
        views = self._views.setdefault(bundle, {})
        if view not in views:
            views[view] = self._made(bundle, view, views)
        return views[view]

    def _made(self, bundle: Bundle, view: View, views: dict[View, ir.Value]) -> ir.Value:
        layout, at = view.layout, AXIS[view.layout]
        if bundle.is_stored:
            join = np.concatenate if view.is_merged else np.stack
            return self.constant(join(bundle.arrays, at), bundle.name)
        sibling = View(layout, not view.is_merged)
        if sibling in views:
            return self._reseen(bundle, views[sibling], view)
        parts = self._parts.get(bundle)
        other = Layout.PACKED if layout is Layout.STACKED else Layout.STACKED
        held = any(View(other, each) in views for each in (True, False))
        if held and (parts is None or None in parts):
            return self._moved(bundle, view, other, views)
        return self._joined(bundle, view)

    def _joined(self, bundle: Bundle, view: View) -> ir.Value:
        """Make a view of what is there once or M times."""
        at = AXIS[view.layout]
        parts = [self.part(bundle, model) for model in range(self.models)]
        if view.is_merged or (bundle.rank > at and _open(bundle, after=at) <= 1):
            merged = self.concat(parts, at, bundle.name)
            if view.is_merged:
                return merged
            self.give(bundle, merged, View(view.layout, True))
            return self._reseen(bundle, merged, view)
        wide = [self.unsqueeze(part, [at], part.name or "") for part in parts]
        return self.concat(wide, at, bundle.name)

    def _split(self, bundle: Bundle) -> list[ir.Value]:
        """Part what is there in one tensor."""
        views = self._views[bundle]
        names = [
            f"{name}/{value.name}" for name, value in zip(self.names, bundle.values, strict=True)
        ]
        layout = next(iter(views)).layout
        at = AXIS[layout]
        merged = views.get(View(layout, True))
        if merged is None and bundle.rank > at and _open(bundle, after=at + 1) <= 1:
            merged = self._view(bundle, View(layout, True))
        if merged is not None:
            return self.split(merged, at, names)
        wide = self.split(views[View(layout, False)], at, [f"{name}.wide" for name in names])
        return [self.squeeze(v, [at], name) for v, name in zip(wide, names, strict=True)]

    def _reseen(self, bundle: Bundle, value: ir.Value, view: View) -> ir.Value:
        """Merge the axis of M with the one behind it, or part them: no byte moves."""
        at, m = AXIS[view.layout], self.models
        assert bundle.dims is not None
        behind = bundle.size(at) if bundle.rank > at else 1
        middle = (
            [m * behind if behind is not None else -1]
            if view.is_merged
            else [m, -1 if behind is None else behind]
        )
        rest = [dim if isinstance(dim, int) else -1 for dim in bundle.dims[at + 1 :]]
        shape = [0] * at + middle + rest
        if shape.count(-1) <= 1:
            return self.reshape(value, shape, bundle.name)
        # More than one size is open: take those behind from the tensor itself.
        first = at + 2 if view.is_merged else at + 1
        sizes = self.one("Shape", value, name=f"{bundle.name}.shape")
        last = first + len(rest)
        pieces = [self.constant([0] * at + middle, "sizes")]
        pieces.append(self.take(sizes, range(first, last), f"{bundle.name}.sizes"))
        wanted = self.concat(pieces, 0, f"{bundle.name}.wanted")
        return self.one("Reshape", value, wanted, name=bundle.name)

    def sizes(self, bundle: Bundle) -> tuple[ir.Value, list[int]] | None:
        """Return the shape of a view that is there, and where in it the sizes of one value are.

        None if there is one tensor per model, or the axis of M can only be parted by copying.
        """
        views = self._views.get(bundle, {})
        parts = self._parts.get(bundle)
        if not views or (parts is not None and parts[0] is not None):
            return None
        layout = next(iter(views)).layout
        explicit = self._view(bundle, View(layout, False))
        shape = self.one("Shape", explicit, name=f"{bundle.name}.shape")
        at = AXIS[layout]
        return shape, [axis + (axis >= at) for axis in range(bundle.rank)]

    def take(self, vector: ir.Value, places: Iterable[int], name: str) -> ir.Value:
        """Take some elements of a vector."""
        return self.one("Gather", vector, self.constant(list(places), "places"), name=name, axis=0)

    def _moved(
        self, bundle: Bundle, view: View, other: Layout, views: dict[View, ir.Value]
    ) -> ir.Value:
        """Change between stacked and packed: a copy, unless there is one sample."""
        dims = bundle.explicit_dims(view.layout, self.models)
        if bundle.size(0) == 1 and all(isinstance(dim, int) for dim in dims):
            at = AXIS[view.layout]
            shape = [int(dim) for dim in dims if isinstance(dim, int)]
            if view.is_merged:
                shape[at : at + 2] = [shape[at] * shape[at + 1]]
            return self.reshape(next(iter(views.values())), shape, bundle.name)
        explicit = self._view(bundle, View(other, False))
        order = [1, 0, *range(2, bundle.rank + 1)]
        moved = self.one("Transpose", explicit, name=bundle.name, perm=order)
        self.give(bundle, moved, View(view.layout, False))
        return moved if not view.is_merged else self._reseen(bundle, moved, view)


def _open(bundle: Bundle, *, after: int) -> int:
    """Count the open sizes from an axis on."""
    assert bundle.dims is not None
    return sum(not isinstance(dim, int) for dim in bundle.dims[after:])


def _unique(name: str, taken: set[str]) -> str:
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    taken.add(found)
    return found
