from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coinfer.core.lane import Lane, LaneKey
from coinfer.testing.machine import request


@given(
    ranks=st.lists(st.integers(0, 5), min_size=1, max_size=150),
    removals=st.lists(st.integers(0, 1000), max_size=150),
)
def test_a_lane_is_a_sorted_list_with_removal(ranks: list[int], removals: list[int]) -> None:
    lane = Lane(LaneKey("m"))
    model: list[tuple[int, int]] = []
    for number, rank in enumerate(ranks):
        lane.push(rank, request(id=number))
        model.append((rank, number))
    model.sort()
    for removal in removals:
        if not model:
            break
        _, number = model.pop(removal % len(model))
        assert lane.remove(number) == (not model)
        lane.check()
        assert len(lane) == len(model)
        assert [(rank[0], r.id) for rank, r in lane.ranked()] == model
        if model:
            assert (lane.head_rank, lane.head.id) == (model[0], model[0][1])


def test_dead_entries_do_not_pile_up() -> None:
    lane = Lane(LaneKey("m"))
    lane.push(0, request(id=0))
    for number in range(1, 10_000):
        lane.push(1, request(id=number))
        if number > 10:
            lane.remove(number - 5)
    assert len(lane.heap) < 200
