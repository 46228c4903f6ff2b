"""Apply: make the fused graph of what was chosen. Mechanical; decides nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, assert_never

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from coinfer.graph.fusing.builder import Builder
from coinfer.graph.fusing.bundle import Bundle
from coinfer.graph.fusing.choice import Decision, Form
from coinfer.graph.fusing.rules import RULES
from coinfer.graph.fusing.site import Site, Sites
from coinfer.model.validation import dimension

__all__ = ["Applied", "apply"]

_WEIGHTS_NEED_NO_INPUT = 4
"""The first IR version in which an initializer is a constant and not the default of an input."""


class Applied(NamedTuple):
    """A fused graph, and what its inputs and outputs are called.

    Attributes:
        graph: The graph with its weights.
        inputs: Per model the name here of each of its inputs.
        outputs: Per model the name here of each of its outputs.
    """

    graph: ir.Model
    inputs: tuple[Mapping[str, str], ...]
    outputs: tuple[Mapping[str, str], ...]


def apply(sites: Sites, decisions: Sequence[Decision]) -> Applied:
    """Make one graph that computes what the matched models compute.

    Args:
        sites: The operators.
        decisions: What becomes of each, in their order.
    """
    fusion = _Fusion(sites)
    for site, decision in zip(sites.items, decisions, strict=True):
        fusion.add(site, decision)
    for model, nodes in enumerate(sites.match.rest):
        for node in nodes:
            fusion.add_own(model, node)
    return fusion.finished()


class _Fusion:
    """The graph that is being made, and where the values of each model are in it."""

    def __init__(self, sites: Sites) -> None:
        self._sites = sites
        self._match = sites.match
        self._out = Builder(sites.match.names, sites.match.models[0].opset_imports.get("", 1))
        self._bundle_of: list[dict[ir.Value, Bundle]] = [{} for _ in sites.match.names]
        self._own: list[dict[ir.Value, ir.Value]] = [{} for _ in sites.match.names]
        self._symbols = [_symbols(model, sites.match.models[0]) for model in sites.match.models]
        self._outputs = self._reserved()
        self._inputs: list[list[ir.Value]] = [[] for _ in sites.match.names]
        self._named: set[ir.Value] = set()
        for bundle in sites.inputs:
            self._add_input(bundle)

    def _reserved(self) -> list[list[str]]:
        """Take the names of what the models give."""
        pairs = zip(self._match.names, self._match.models, strict=True)
        return [
            [self._out.unique(f"{name}/{value.name}") for value in model.graph.outputs]
            for name, model in pairs
        ]

    def _add_input(self, bundle: Bundle) -> None:
        given = enumerate(bundle.values[:1] if bundle.is_shared else bundle.values)
        for model, value in given:
            name = value.name or ""
            if not bundle.is_shared or self._out.models == 1:
                name = f"{self._match.names[model]}/{name}"
            made = ir.val(self._out.unique(name))
            made.type, made.shape = value.type, self._shape(value, model)
            made.const_value = value.const_value
            if value.const_value is not None:  # the default of an input
                self._out.initializers[made.name or ""] = made
            self._inputs[model].append(made)
            if bundle.is_shared:
                self._out.give_shared(bundle, made)
            else:
                self._out.give_part(bundle, model, made)
        self._know(bundle)

    def _know(self, bundle: Bundle) -> None:
        for known, value in zip(self._bundle_of, bundle.values, strict=True):
            known[value] = bundle

    def _shape(self, value: ir.Value, model: int) -> ir.Shape | None:
        """Return a shape with the symbols that the first model has for the same sizes."""
        if value.shape is None:
            return None
        sizes = [dimension(dim) for dim in value.shape]
        return ir.Shape([self._symbol(size, model) for size in sizes])

    def _symbol(self, size: int | str | None, model: int) -> int | str | None:
        if not isinstance(size, str):
            return size
        return self._symbols[model].get(size, f"{self._match.names[model]}/{size}")

    # operators

    def add(self, site: Site, decision: Decision) -> None:
        """Add an operator of all models."""
        match decision.form:
            case Form.ONCE:
                self._add_once(site)
            case Form.GROUPED:
                RULES[site.op_type].merge(site, decision.layout, self._out)
            case Form.BRANCHES | Form.APART:
                self._add_branches(site)
            case _:
                assert_never(decision.form)
        for bundle in site.outputs:
            if bundle is not None:
                self._know(bundle)

    def _add_once(self, site: Site) -> None:
        if site.op_type in ("Shape", "Size") and not site.given(0).is_shared:
            made = self._measured(site)
        else:
            inputs = [None if each is None else self._out.shared(each) for each in site.inputs]
            made = self._copied(site.node, inputs, "", 0)
        for bundle, value in zip(site.outputs, made, strict=True):
            if bundle is not None:
                self._out.give_shared(bundle, value)

    def _measured(self, site: Site) -> list[ir.Value]:
        """Return the shape of what the models have each, which is the same for all."""
        sizes = None if site.op_type == "Size" else self._out.sizes(site.given(0))
        if sizes is None:
            return self._out.copy(site, [self._out.part(site.given(0), 0)])
        count = site.given(0).rank
        first, last = site.number("start", 0), site.number("end", count)
        places = range(count)[first:last]
        return [self._out.take(sizes[0], [sizes[1][at] for at in places], site.out.name)]

    def _add_branches(self, site: Site) -> None:
        for model, (name, node) in enumerate(zip(self._match.names, site.nodes, strict=True)):
            inputs = [None if b is None else self._out.part(b, model) for b in site.inputs]
            made = self._copied(node, inputs, f"{name}/", model)
            for bundle, value in zip(site.outputs, made, strict=True):
                if bundle is not None:
                    self._out.give_part(bundle, model, value)

    def add_own(self, model: int, node: ir.Node) -> None:
        """Add an operator that one model alone has."""
        inputs = [None if value is None else self.value(model, value) for value in node.inputs]
        made = self._copied(node, inputs, f"{self._match.names[model]}/", model)
        self._own[model].update(zip(node.outputs, made, strict=True))

    def value(self, model: int, value: ir.Value) -> ir.Value:
        """Return what a value of one model is here."""
        own = self._own[model]
        if value not in own:
            bundle = self._bundle_of[model].get(value)
            if bundle is None and value.const_value is not None:
                name = f"{self._match.names[model]}/{value.name}"
                own[value] = self._out.initializer(value.const_value, name)
            elif bundle is not None:
                return self._out.part(bundle, model)
        return own[value]

    def _copied(
        self, node: ir.Node, inputs: Sequence[ir.Value | None], prefix: str, model: int
    ) -> list[ir.Value]:
        """Copy an operator of one model with all that is inside of it."""
        attributes = [self._inside(attr, model) for attr in node.attributes.values()]
        outputs = [f"{prefix}{value.name}" if value.name else "" for value in node.outputs]
        first = next(value.name for value in node.outputs if value.name)
        return self._out.node(
            node.op_type,
            inputs,
            name=f"{prefix}{node.name or first}",
            attributes=attributes,
            outputs=outputs,
            domain=node.domain,
        )

    def _inside(self, attr: ir.Attr, model: int) -> ir.Attr:
        """Copy the graphs inside of an operator; they read the values of this model."""
        if attr.is_ref() or attr.type not in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
            return attr
        graphs = [attr.as_graph()] if attr.type == ir.AttributeType.GRAPH else attr.as_graphs()
        clones = [self._inner(graph, model) for graph in graphs]
        if attr.type == ir.AttributeType.GRAPH:
            return ir.AttrGraph(attr.name, clones[0])
        return ir.AttrGraphs(attr.name, clones)

    def _inner(self, graph: ir.Graph, model: int) -> ir.Graph:
        outer = self._match.models[model].graph
        clone = graph.clone(allow_outer_scope_values=True)
        prefix = f"{self._match.names[model]}/"
        for each in (clone, *clone.subgraphs()):
            for value in (*each.inputs, *each.initializers.values()):
                value.name = f"{prefix}{value.name}"
        for node in clone.all_nodes():
            for made in node.outputs:
                made.name = f"{prefix}{made.name}" if made.name else ""
            for index, read in enumerate(node.inputs):
                if read is not None and read.graph is outer:
                    node.replace_input_with(index, self.value(model, read))
        for each in (clone, *clone.subgraphs()):
            for index, value in enumerate(each.outputs):
                if value.graph is outer:
                    each.outputs[index] = self.value(model, value)
        return clone

    # the end

    def finished(self) -> Applied:
        """Name the outputs and make the graph."""
        outputs = [
            self._output(model, value, name)
            for model, (graph, names) in enumerate(
                zip(self._match.models, self._outputs, strict=True)
            )
            for value, name in zip(graph.graph.outputs, names, strict=True)
        ]
        graph = ir.Graph(
            [value for values in self._inputs for value in values],
            outputs,
            nodes=self._out.nodes,
            initializers=tuple(self._out.initializers.values()),
            opset_imports=self._opsets(),
            name="fused",
        )
        version = max(_WEIGHTS_NEED_NO_INPUT, *(model.ir_version for model in self._match.models))
        properties = self._bounds()
        fused = ir.Model(
            graph, ir_version=version, producer_name="coinfer", metadata_props=properties
        )
        RemoveUnusedNodesPass()(fused)
        return Applied(fused, self._input_names(), self._output_names())

    def _output(self, model: int, value: ir.Value, name: str) -> ir.Value:
        """Return what a model gives under its name; what has another name already is copied."""
        found = self.value(model, value)
        if found in self._named or found.producer() is None:
            found = self._out.one("Identity", found, name=name)
        found.name, found.type, found.shape = name, value.type, self._shape(value, model)
        self._named.add(found)
        return found

    def _opsets(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for model in self._match.models:
            found |= {
                domain: max(version, found.get(domain, 1))
                for domain, version in model.opset_imports.items()
            }
        return found

    def _bounds(self) -> dict[str, str]:
        """What the files say of how large integer inputs get, under the new names."""
        found = {}
        for model, names in zip(self._match.models, self._input_names(), strict=True):
            for old, new in names.items():
                bound = model.metadata_props.get(f"coinfer.input.{old}.high")
                if bound is not None:
                    found[f"coinfer.input.{new}.high"] = bound
        return found

    def _input_names(self) -> tuple[Mapping[str, str], ...]:
        return tuple(
            {
                value.name or "": self._out.part(known[value], model).name or ""
                for value in graph.graph.inputs
            }
            for model, (known, graph) in enumerate(
                zip(self._bundle_of, self._match.models, strict=True)
            )
        )

    def _output_names(self) -> tuple[Mapping[str, str], ...]:
        pairs = zip(self._match.models, self._outputs, strict=True)
        return tuple(
            {value.name or "": name for value, name in zip(graph.graph.outputs, names, strict=True)}
            for graph, names in pairs
        )


def _symbols(model: ir.Model, first: ir.Model) -> dict[str, str]:
    """Map the symbols of a model's inputs to those that the first model has there."""
    found: dict[str, str] = {}
    for mine, theirs in zip(model.graph.inputs, first.graph.inputs, strict=True):
        for dim, other in zip(mine.shape or (), theirs.shape or (), strict=True):
            name, wanted = dimension(dim), dimension(other)
            if isinstance(name, str) and isinstance(wanted, str):
                found[name] = wanted
    return found
