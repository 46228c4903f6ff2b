"""What has settled down is left alone by the garbage collector, until it ends."""

from __future__ import annotations

import gc

import pytest

from coinfer.backends import heap


def test_full_collections_are_rare_and_see_little_while_it_is_settled() -> None:
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    with heap.settled():
        assert gc.get_threshold() == (*before[:2], max(before[2], 4000))
        assert gc.get_freeze_count() > frozen
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def test_who_never_collects_full_generations_is_not_made_to() -> None:
    before = gc.get_threshold()
    gc.set_threshold(before[0], before[1], 5000)
    try:
        with heap.settled():
            assert gc.get_threshold()[2] == 5000
    finally:
        gc.set_threshold(*before)


@pytest.mark.parametrize("is_noted", [True, False])
def test_young_objects_do_not_pile_up_where_old_ones_go_as_they_come(is_noted: bool) -> None:
    turnover = heap.Turnover(many=32)
    there = [[[]] for _ in range(20_000)]
    gc.collect()
    young = []
    for at in range(len(there)):
        there[at] = [[]]  # one of the oldest goes for each that comes
        if is_noted:
            turnover.note()
        if at % 1000 == 999:
            young.append(len(gc.get_objects(generation=0)) + len(gc.get_objects(generation=1)))
    assert (max(young) < 2_000) is is_noted


def test_who_does_without_the_collector_is_not_made_to_use_it() -> None:
    turnover, looks = heap.Turnover(many=1), list[object]()
    gc.disable()
    gc.callbacks.append(lambda *_: looks.append(_))
    try:
        turnover.note()
    finally:
        gc.callbacks.pop()
        gc.enable()
    assert looks == []
