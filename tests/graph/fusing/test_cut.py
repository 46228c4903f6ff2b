"""The labelling costs least: beside trying all of them."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coinfer.graph.fusing.cut import Change, cost_of, least_labels

COSTS = st.integers(0, 20).map(float)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data(), size=st.integers(1, 7))
def test_two_labels_are_exact(data: st.DataObject, size: int) -> None:
    prices = data.draw(st.lists(st.tuples(COSTS, COSTS), min_size=size, max_size=size))
    pairs = [(a, b) for a in range(size) for b in range(a + 1, size) if data.draw(st.booleans())]
    changes = []
    for one, other in pairs:
        cost = data.draw(COSTS)
        changes.append(Change(one, other, ((0.0, cost), (cost, 0.0))))
    found = cost_of(prices, changes, least_labels(prices, changes))
    every = product(range(2), repeat=size)
    assert found == pytest.approx(min(cost_of(prices, changes, each) for each in every), abs=1e-4)


def test_what_cannot_be_is_not_chosen() -> None:
    prices = [[None, 5.0, None], [1.0, None, 9.0], [None, 2.0, 0.0]]
    changes = [Change(0, 1, ((0, 3, 3), (3, 0, 3), (3, 3, 0)))]
    assert least_labels(prices, changes) == [1, 0, 2]


def test_a_dear_change_keeps_neighbours_together() -> None:
    ring = ((0.0, 9.0, 9.0), (9.0, 0.0, 9.0), (9.0, 9.0, 0.0))
    prices = [[0.0, 1.0, None], [2.0, 1.0, 2.0], [None, 1.0, 0.0]]
    assert least_labels(prices, [Change(0, 1, ring), Change(1, 2, ring)]) == [1, 1, 1]


def test_nothing_to_label() -> None:
    assert least_labels([], []) == []
