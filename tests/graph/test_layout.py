"""Layout: nothing lies on top of anything else, and everything is below what it reads from."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coinfer.graph.layout import BOX, Layout, lay_out
from coinfer.graph.operators import Operators
from coinfer.planner.model_source import resolve_model
from coinfer.testing.models import model_from_text
from graph.chains import random_models


def assert_readable(operators: Operators, layout: Layout) -> None:
    boxes = layout.centres
    for a, b in combinations(boxes, 2):
        assert abs(a.x - b.x) >= BOX.x or abs(a.y - b.y) >= BOX.y, "boxes overlap"
    for (producer, reader), points in layout.edges.items():
        assert points[0] == (boxes[producer].x, boxes[producer].y + BOX.y / 2)
        assert points[-1] == (boxes[reader].x, boxes[reader].y - BOX.y / 2)
        same_column = abs(boxes[reader].x - boxes[producer].x) < BOX.x
        assert boxes[reader].y > boxes[producer].y or not same_column
    inside = [*boxes, *(point for points in layout.edges.values() for point in points)]
    assert all(0 <= p.x <= layout.width and 0 <= p.y <= layout.height for p in inside)
    assert set(layout.edges) == {(o.index, r) for o in operators for r in o.readers}


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_graph_is_drawn_readably(data: st.DataObject) -> None:
    operators = Operators.of(data.draw(random_models()).graph)
    assert_readable(operators, lay_out(operators))


@pytest.mark.parametrize("name", ["tiny_branchy", "squeezenet1_1", "mobilenet_v2", "resnet50"])
def test_networks_are_drawn_readably(name: str) -> None:
    operators = Operators.of(resolve_model(f"zoo:{name}").graph)
    assert_readable(operators, lay_out(operators))


def test_lines_pass_beside_boxes_and_not_behind_them() -> None:
    """A skip connection has room of its own in each layer that it passes."""
    operators = Operators.of(resolve_model("zoo:mobilenet_v2").graph)
    layout = lay_out(operators)
    for (producer, reader), points in layout.edges.items():
        for point in points[1:-1]:
            for index, centre in enumerate(layout.centres):
                if index not in (producer, reader):
                    hit = (
                        abs(point.x - centre.x) < BOX.x / 2 and abs(point.y - centre.y) < BOX.y / 2
                    )
                    assert not hit


def test_lines_to_the_next_column_run_side_by_side() -> None:
    operators = Operators.of(resolve_model("zoo:mobilenet_v2").graph)
    layout = lay_out(operators)
    upright: dict[float, set[int]] = {}
    for (producer, _), points in layout.edges.items():
        for before, after in pairwise(points):
            if before.x == after.x and after.y < before.y:
                upright.setdefault(before.x, set()).add(producer)
    assert upright
    assert all(len(producers) == 1 for producers in upright.values())


def test_a_graph_without_operators_has_a_size() -> None:
    model = model_from_text("g (float[N] x) => (float[2] w) <float[2] w = {1, 2}> { }", name="g")
    layout = lay_out(Operators.of(model.graph))
    assert layout.width > 0
    assert layout.height > 0
