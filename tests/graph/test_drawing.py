"""Drawing: an SVG that any program opens, whatever names the model has."""

from __future__ import annotations

from xml.etree import ElementTree

from coinfer.graph.drawing import draw
from coinfer.graph.operators import Operators
from coinfer.graph.partition import choose_partition, partition_at
from coinfer.graph.partition_options import PartitionOptions
from coinfer.testing.models import model_from_text, tiny_linear
from graph.chains import everything, gaps

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    return [each.text or "" for each in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_the_legend_counts_units_and_operators_by_processors() -> None:
    model = model_from_text(
        "g (float[N,3] x) => (float[N,3] y) { a = Relu(x) b = Tanh(a) y = Relu(b) }", name="g"
    )
    operators = Operators.of(model.graph)
    support = {"cpu": everything(operators), "npu": gaps(operators, "Tanh")}
    options = PartitionOptions(minimum_subgraph_size=1)
    shown = texts(draw(choose_partition(model, support, options), "the net"))
    assert shown[0] == "the net"
    assert "3 operators in 3 units, mode merged; thick lines cross from unit to unit" in shown
    assert "cpu, npu: 2 units, 2 operators" in shown
    assert "cpu: 1 unit, 1 operator" in shown


def test_names_are_text_and_not_markup() -> None:
    model = tiny_linear().model
    partition = partition_at(model, [1], {'<cpu> & "co"': frozenset({0, 1})})
    svg = draw(partition, "a < b & c")
    assert texts(svg)[0] == "a < b & c"
    assert any(text.startswith('<cpu> & "co": 2 units') for text in texts(svg))


def test_a_drawing_refers_to_nothing_outside_of_it() -> None:
    partition = partition_at(tiny_linear().model, [], {"cpu": frozenset({0, 1})})
    svg = draw(partition, "t")
    assert "href" not in svg
    assert "url(" not in svg
    assert "<script" not in svg


def test_equal_partitions_give_equal_drawings() -> None:
    drawings = {
        draw(partition_at(tiny_linear().model, [1], {"cpu": frozenset({0, 1})}), "t")
        for _ in range(2)
    }
    assert len(drawings) == 1
