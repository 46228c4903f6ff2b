"""What has settled down is left alone by the garbage collector, until it ends."""

from __future__ import annotations

import gc

from coinfer.backends import heap


def test_full_collections_are_rare_and_see_little_while_it_is_settled() -> None:
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    with heap.settled():
        assert gc.get_threshold() == (*before[:2], max(before[2], 100))
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
