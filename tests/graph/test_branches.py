"""Branches: which parts of a graph do not need each other, and which spans may so run at once."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from coinfer.backends.onnxruntime import OnnxRuntimeBackend
from coinfer.errors import ConfigurationError
from coinfer.graph.branches import branch_pieces
from coinfer.graph.extract import extract
from coinfer.graph.operators import Operators
from coinfer.graph.partition import Partition, choose_partition, partition_at
from coinfer.graph.partition_options import Mode, PartitionOptions
from coinfer.graph.units import UnitSubgraph
from coinfer.machine.processor import Processor
from coinfer.machine.span import Fork, Span
from coinfer.model import Model
from coinfer.planner.model_source import resolve_model
from coinfer.testing.models import model_from_text
from graph.chains import everything

CPU = Processor(name="cpu", backend="onnxruntime", units=frozenset({"cpu"}))


def graph(body: str, outputs: str = "y") -> Model:
    declared = ", ".join(f"float[N,3] {name}" for name in outputs.split())
    return model_from_text(f"g (float[N,3] x) => ({declared}) {{ {body} }}", name="g")


def sides(model: Model, costs: list[float] | None = None, least: float = 1.0) -> list[list[str]]:
    """The operators of each unit, by what they make."""
    operators = Operators.of(model.graph)
    whole = UnitSubgraph(operators=tuple(range(len(operators))), processors=frozenset({"cpu"}))
    units = branch_pieces([whole], operators, costs or [1.0] * len(operators), least)
    assert sorted(i for unit in units for i in unit.operators) == list(range(len(operators)))
    return [[operators[index].key for index in unit.operators] for unit in units]


def partition(model: Model, **options: object) -> Partition:
    operators = Operators.of(model.graph)
    support = {"a": everything(operators), "b": everything(operators)}
    settings = {"branches": True, **options}
    return choose_partition(model, support, PartitionOptions(**settings), operators=operators)


class TestPieces:
    def test_a_chain_stays_whole(self) -> None:
        assert sides(graph("a = Relu(x) b = Tanh(a) y = Relu(b)")) == [["a", "b", "y"]]

    def test_branches_that_are_written_in_turns_are_put_together(self) -> None:
        model = graph("l1 = Relu(x) r1 = Tanh(x) l2 = Exp(l1) r2 = Sin(r1) y = Add(l2, r2)")
        assert sides(model) == [["l1", "l2"], ["r1", "r2"], ["y"]]

    def test_many_branches_become_two_sides_of_about_equal_cost(self) -> None:
        model = graph(
            "s = Relu(x) a = Exp(s) b = Tanh(s) c = Sin(s) d = Cos(s) y = Sum(a, b, c, d)"
        )
        assert sides(model, [1.0, 4.0, 1.0, 2.0, 1.0, 1.0]) == [
            ["s"],
            ["a"],
            ["b", "c", "d"],
            ["y"],
        ]

    def test_towers_and_heads_need_no_operator_before_or_behind_them(self) -> None:
        model = graph("a = Relu(x) b = Tanh(x) y = Exp(a) z = Sin(b)", outputs="y z")
        assert sides(model) == [["a", "y"], ["b", "z"]]

    def test_a_branch_that_is_worth_no_execution_is_not_cut_off(self) -> None:
        model = graph("s = Relu(x) l = Exp(s) r = Tanh(s) y = Add(l, r)")
        assert len(sides(model, least=1.0)) == 4
        assert len(sides(model, least=1.1)) == 1

    def test_a_skip_connection_is_no_branch(self) -> None:
        assert len(sides(graph("a = Relu(x) b = Tanh(a) y = Add(b, a)"))) == 1

    def test_what_is_not_parted_is_looked_into(self) -> None:
        """Queries and keys meet before the values do; the values' branch is worth too little."""
        model = graph("s = Relu(x) q = Exp(s) k = Tanh(s) w = Mul(q, k) v = Sin(s) y = Mul(w, v)")
        assert sides(model, [1.0, 5.0, 5.0, 1.0, 0.5, 1.0]) == [
            ["s"],
            ["q"],
            ["k"],
            ["w", "v", "y"],
        ]

    def test_the_cut_that_saves_more_is_made(self) -> None:
        model = graph("s = Relu(x) q = Exp(s) k = Tanh(s) w = Mul(q, k) v = Sin(s) y = Mul(w, v)")
        assert ["v"] in sides(model, [1.0, 2.0, 2.0, 1.0, 4.0, 1.0])

    @pytest.mark.parametrize("seed", range(20))
    def test_units_of_any_graph_can_run_in_their_order(self, seed: int) -> None:
        rng = random.Random(seed)
        names = ["x"]
        lines = []
        for at in range(12):
            one, other = rng.choice(names[-5:]), rng.choice(names[-5:])
            lines.append(f"v{at} = Add({one}, {other})")
            names.append(f"v{at}")
        unread = [n for n in names if not any(f"({n}," in s or f" {n})" in s for s in lines)]
        model = graph(" ".join(lines), outputs=" ".join(unread))
        cut = partition(model)
        for at, needed in enumerate(cut.dependencies):
            assert all(unit < at for unit in needed)


class TestForks:
    def test_a_fork_is_where_the_right_span_reads_nothing_of_the_left(self) -> None:
        model = graph("s = Relu(x) l = Exp(s) r = Tanh(s) y = Add(l, r)")
        assert partition(model, branches=True).forks == (Fork(1, 2, 2),)

    def test_there_are_none_in_a_chain_however_it_is_cut(self) -> None:
        model = graph("a = Relu(x) b = Tanh(a) c = Exp(b) y = Sin(c)")
        assert partition(model, pieces=4).forks == ()

    def test_cuts_that_are_there_anyway_give_forks_as_well(self) -> None:
        model = graph("s = Relu(x) l = Exp(s) r = Tanh(s) y = Add(l, r)")
        operators = Operators.of(model.graph)
        cut = partition_at(model, [1, 2, 3], {"a": everything(operators)}, operators=operators)
        assert cut.forks == (Fork(1, 2, 2),)

    def test_sides_that_are_cut_further_fork_from_each_of_their_borders(self) -> None:
        model = graph("l1 = Relu(x) l2 = Exp(l1) r1 = Tanh(x) r2 = Sin(r1) y = Add(l2, r2)")
        operators = Operators.of(model.graph)
        support = {"a": everything(operators)}
        cut = partition_at(model, [1, 2, 3, 4], support, operators=operators)
        assert cut.forks == (Fork(0, 2, 3), Fork(1, 2, 3))
        single = partition_at(model, [1, 2, 3, 4], support, mode=Mode.UNIT, operators=operators)
        assert single.forks == (Fork(1, 2, 2),)

    def test_a_shorter_right_span_counts_where_more_processors_run_it(self) -> None:
        model = graph("l1 = Relu(x) r1 = Exp(x) r2 = Sin(r1) y = Add(l1, r2)")
        operators = Operators.of(model.graph)
        support = {"a": everything(operators), "b": frozenset({0, 1, 3})}
        cut = partition_at(model, [1, 2, 3], support, operators=operators)
        assert cut.forks == (Fork(0, 1, 1), Fork(0, 1, 2))

    @pytest.mark.parametrize("mode", [Mode.WHOLE, Mode.FALLBACK_PER_PROCESSOR])
    def test_modes_that_keep_branches_together_are_refused(self, mode: Mode) -> None:
        with pytest.raises(ConfigurationError, match="use unit or merged"):
            PartitionOptions(mode=mode, branches=True)

    @pytest.mark.parametrize(
        ("name", "forks"), [("tiny_branchy", 2), ("inception_v3", 11), ("mobilenet_v2", 0)]
    )
    def test_networks_of_the_zoo_have_the_forks_that_their_branches_make(
        self, name: str, forks: int
    ) -> None:
        assert len(partition(resolve_model(f"zoo:{name}")).forks) == forks

    def test_the_sides_of_a_fork_compute_the_same_in_any_order(self) -> None:
        model = resolve_model("zoo:tiny_branchy")
        cut = partition(model)
        feed, backend = model.sample_inputs(), OnnxRuntimeBackend()
        expected = backend.load(model, CPU).run(feed)
        spans = [Span(at, at) for at in range(len(cut.units))]
        for fork in cut.forks:
            spans[fork.first], spans[fork.middle] = spans[fork.middle], spans[fork.first]
        known = dict(feed)
        for span in spans:
            reads = {name: known[name] for name in cut.reads(span)}
            known.update(backend.load(extract(model, cut, span), CPU).run(reads))
        for name, value in expected.items():
            error = np.linalg.norm(known[name] - value) / np.linalg.norm(value)
            assert error <= 1e-5


def test_no_fork_is_missed_and_none_is_wrong() -> None:
    """Against the definition, with every cut of a small graph."""
    model = graph("a = Relu(x) b = Exp(a) c = Tanh(x) d = Sin(a) y = Sum(b, c, d)")
    operators = Operators.of(model.graph)
    for count in range(1, 5):
        for cuts in itertools.combinations(range(1, 5), count):
            cut = partition_at(model, cuts, {"a": everything(operators)}, operators=operators)
            units = len(cut.units)
            right = {
                (first, middle, last)
                for first, middle, last in itertools.product(range(units), repeat=3)
                if first < middle <= last
                and set(cut.reads(Span(middle, last))).isdisjoint(
                    cut.writes(Span(first, middle - 1))
                )
            }
            longest = {fork for fork in right if (fork[0], fork[1], fork[2] + 1) not in right}
            assert {tuple(fork) for fork in cut.forks} == longest
