"""Operators of a graph in topological order: what each reads, writes, and who reads that.

Knows ONNX graphs and the types of their values; knows nothing of processors.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import (
    Callable,
    Collection,
    Hashable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import Final, TypeVar

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from coinfer.errors import ModelError, first_line
from coinfer.graph.inference import border_specs, mark
from coinfer.model.canonical import graphs_of
from coinfer.model.specs import TensorSpec

__all__ = [
    "DRAWS_RANDOM",
    "MATRIX_PRODUCTS",
    "Operator",
    "Operators",
    "followers",
    "inlined",
    "labelled_runs",
    "nodes_by_key",
    "read_values",
    "subgraphs",
]

DRAWS_RANDOM: Final = frozenset(
    {
        "Bernoulli",
        "Dropout",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
"""Computing one of these twice gives two different values, even if all it reads is constant."""

MATRIX_PRODUCTS: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""What nearly all of the arithmetic of most networks is done by."""

_STANDARD_DOMAINS: Final = frozenset({"", "ai.onnx"})

_Label = TypeVar("_Label", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """One node of the main graph. If, Loop and Scan are one operator with all that is in them.

    Attributes:
        index: Position among the operators.
        name: The node's name, or `OPTYPE_INDEX` if it has none.
        op_type: Its type, with the domain before it unless that is the standard one.
        op_types: Types of all nodes that it consists of, written the same way: those inside too.
        reads: Values that it needs and that are not constant, captured ones included.
        writes: Values that it makes; left-out optional ones are not listed.
        producers: Operators that make what it reads, ascending.
        readers: Operators that read what it makes, ascending.
    """

    index: int
    name: str
    op_type: str
    op_types: frozenset[str]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    producers: tuple[int, ...]
    readers: tuple[int, ...]

    @property
    def key(self) -> str:
        """The first value that it makes: identifies it in its graph."""
        return self.writes[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operators:
    """What of a graph is computed anew in each execution, in topological order.

    Not operators: initializers, `Constant` nodes and what is computed from these alone; they go
    along with whoever reads them. Nor what no output needs.

    Attributes:
        items: The operators.
        inputs: Inputs of the model that a caller gives.
        outputs: Outputs of the model.
        specs: Dtype and shape of each value that can be handed from one compiled part to another:
            a tensor of known rank, of a dtype that numpy has.
        groups: Operators that cannot be parted because of values that are not in `specs`; most
            have one member. Groups are in topological order.

    >>> model = ir.from_onnx_text('''<ir_version: 10, opset_import: ["": 20]>
    ... g (float[n, 3] x) => (float[n, 3] y) { a = Relu(x)  y = Add(a, x) }''')
    >>> operators = Operators.of(model)
    >>> [operator.op_type for operator in operators], operators[1].reads, operators[1].producers
    (['Relu', 'Add'], ('a', 'x'), (0,))
    """

    items: tuple[Operator, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    specs: Mapping[str, TensorSpec]
    groups: tuple[tuple[int, ...], ...] = field(repr=False)

    @classmethod
    def of(cls, model: ir.Model) -> Operators:
        """Read the operators of a valid model; its model-local functions are looked into.

        Args:
            model: Any valid model; it is not changed.
        """
        whole = inlined(model)
        graph = whole.graph
        items = _operators(_needed(graph, _variable_nodes(graph)))
        specs = border_specs(whole)
        return cls(
            items=items,
            inputs=tuple(v.name or "" for v in graph.inputs if v.const_value is None),
            outputs=tuple(dict.fromkeys(v.name or "" for v in graph.outputs)),
            specs=specs,
            groups=_groups(items, specs),
        )

    @property
    def group_of(self) -> dict[int, int]:
        """The group of each operator: its position in `groups`."""
        return {index: at for at, members in enumerate(self.groups) for index in members}

    @property
    def group_producers(self) -> list[set[int]]:
        """For each group, the other groups that it reads from."""
        group_of = self.group_of
        return [
            {group_of[p] for i in members for p in self.items[i].producers} - {at}
            for at, members in enumerate(self.groups)
        ]

    def members(self, groups: Iterable[int]) -> tuple[int, ...]:
        """Return the operators of some groups, ascending."""
        return tuple(sorted(index for group in groups for index in self.groups[group]))

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Operator]:
        return iter(self.items)

    def __getitem__(self, index: int) -> Operator:
        return self.items[index]


def inlined(model: ir.Model) -> ir.Model:
    """Return the model, or if it has functions of its own, a clone with these put in place.

    Names of values outside of functions stay, and weights are shared.

    Raises:
        ModelError: they cannot be put in place, e.g. because they are of another opset.
    """
    if not model.functions:
        return model
    mark(model)
    try:
        clone = model.clone()
        InlinePass()(clone)
    except Exception as error:
        # Cloning and inlining raise errors of many types.
        raise ModelError(
            f"graph {model.graph.name!r}: its functions cannot be put in place: "
            f"{first_line(error)}; export it with its functions inlined"
        ) from error
    return clone


def nodes_by_key(model: ir.Model) -> dict[str, ir.Node]:
    """Find the nodes of the main graph by the first value that each makes."""
    nodes = ((next((v.name for v in node.outputs if v.name), None), node) for node in model.graph)
    return {key: node for key, node in nodes if key is not None}


def read_values(node: ir.Node) -> Iterator[ir.Value]:
    """Yield what a node needs of its own graph; what nested graphs capture included."""
    yield from (value for value in node.inputs if value is not None)
    for graph in subgraphs(node):
        inner = (value for each in graph.all_nodes() for value in each.inputs if value is not None)
        # A branch may return a value of the outer graph unchanged.
        yield from (value for value in (*inner, *graph.outputs) if value.graph is node.graph)


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


def subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    """Yield the graphs inside of a node: the bodies of If, Loop and Scan."""
    for attribute in node.attributes.values():
        yield from graphs_of(attribute)


def labelled_runs(
    producers: Mapping[int, Collection[int]], label_of: Callable[[int], _Label]
) -> list[tuple[_Label, list[int]]]:
    """Sort the items of a graph topologically, in runs of equal labels that are as long as can be.

    A run begins with the smallest item that is ready and goes on with the smallest ready ones of
    its label.

    Args:
        producers: For each item, those that come before it.
        label_of: Gives an item's label.

    >>> labelled_runs({0: [], 1: [0], 2: [0], 3: [1, 2]}, lambda item: item == 1)
    [(False, [0, 2]), (True, [1]), (False, [3])]
    """
    sorter = TopologicalSorter(producers)
    sorter.prepare()
    ready: defaultdict[_Label, list[int]] = defaultdict(list)
    runs: list[tuple[_Label, list[int]]] = []
    while sorter.is_active():
        for item in sorter.get_ready():
            heapq.heappush(ready[label_of(item)], item)
        if not runs or not ready[runs[-1][0]]:
            runs.append((label_of(min(heap[0] for heap in ready.values() if heap)), []))
        label, run = runs[-1]
        run.append(heapq.heappop(ready[label]))
        sorter.done(run[-1])
    return runs


def _inner_types(node: ir.Node) -> Iterator[str]:
    for graph in subgraphs(node):
        yield from (_type_of(each) for each in graph.all_nodes() if each.op_type != "Constant")


def _variable_nodes(graph: ir.Graph) -> list[ir.Node]:
    """Nodes whose values differ between executions, or may."""
    constant = {value for value in graph.initializers.values() if value.const_value is not None}
    found = []
    for node in graph:
        if _is_pure(node) and all(value in constant for value in read_values(node)):
            constant.update(node.outputs)
        else:
            found.append(node)
    return found


def _is_pure(node: ir.Node) -> bool:
    """Whether it computes the same from the same. Loops and foreign operators may not."""
    return (
        node.domain in _STANDARD_DOMAINS
        and node.op_type not in DRAWS_RANDOM
        and next(subgraphs(node), None) is None
    )


def _needed(graph: ir.Graph, nodes: Sequence[ir.Node]) -> list[ir.Node]:
    wanted = set(graph.outputs)
    kept = []
    for node in reversed(nodes):
        if not wanted.isdisjoint(node.outputs):
            wanted.update(read_values(node))
            kept.append(node)
    return kept[::-1]


def _operators(nodes: Sequence[ir.Node]) -> tuple[Operator, ...]:
    maker = {value: index for index, node in enumerate(nodes) for value in node.outputs}
    reads: list[tuple[str, ...]] = []
    producers: list[tuple[int, ...]] = []
    readers: list[list[int]] = [[] for _ in nodes]
    for index, node in enumerate(nodes):
        values = [v for v in dict.fromkeys(read_values(node)) if v in maker or _is_given(v)]
        reads.append(tuple(value.name or "" for value in values))
        producers.append(tuple(sorted({maker[value] for value in values if value in maker})))
        for producer in producers[-1]:
            readers[producer].append(index)
    return tuple(
        Operator(
            index=index,
            name=node.name or f"{node.op_type}_{index}",
            op_type=_type_of(node),
            op_types=frozenset({_type_of(node), *_inner_types(node)}),
            reads=reads[index],
            writes=tuple(value.name for value in node.outputs if value.name),
            producers=producers[index],
            readers=tuple(readers[index]),
        )
        for index, node in enumerate(nodes)
    )


def _type_of(node: ir.Node) -> str:
    standard = node.domain in _STANDARD_DOMAINS
    return node.op_type if standard else f"{node.domain}.{node.op_type}"


def _is_given(value: ir.Value) -> bool:
    return value.is_graph_input() and value.const_value is None


def _groups(
    items: Sequence[Operator], specs: Mapping[str, TensorSpec]
) -> tuple[tuple[int, ...], ...]:
    """Join operators that share a value that cannot be handed over, and all on ways between them.

    With an edge back from each such reader to the producer, these are exactly the strongly
    connected components; without such values each operator is one.
    """
    maker = {name: operator.index for operator in items for name in operator.writes}
    back = [
        (operator.index, maker[name])
        for operator in items
        for name in operator.reads
        if name in maker and name not in specs
    ]
    if not back:
        return tuple((operator.index,) for operator in items)
    from scipy.sparse import coo_array  # slow to import, and few graphs get here
    from scipy.sparse.csgraph import connected_components

    forward = [(operator.index, reader) for operator in items for reader in operator.readers]
    edges = np.array(forward + back)
    matrix = coo_array((np.ones(len(edges)), edges.T), shape=(len(items), len(items)))
    members: defaultdict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(connected_components(matrix, connection="strong")[1].tolist()):
        members[label].append(index)
    # A component goes by its first operator: of those that are ready, the one that starts first.
    components = {group[0]: group for group in members.values()}
    first_of = {index: first for first, group in components.items() for index in group}
    producers = {
        first: {first_of[p] for index in group for p in items[index].producers} - {first}
        for first, group in components.items()
    }
    ordered = labelled_runs(producers, lambda _: None)
    return tuple(tuple(components[first]) for _, firsts in ordered for first in firsts)
