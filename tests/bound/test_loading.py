"""The least time of loading: never above what the best schedule needs, found by trying all."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, combinations, count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coinfer.bound.loading import Part, least_loading_s, phases_of

Ways = Mapping[str, Sequence[Sequence[Part]]]
WHOLE: Ways = {
    "a": [[Part(0, 0, "a", "host", 2, 1.0)]],
    "b": [[Part(0, 0, "b", "host", 1, 2.0)]],
    "c": [[Part(0, 0, "c", "host", 2, 4.0)]],
}
CUT: Ways = {
    "a": [[Part(0, 0, "a0", "host", 1, 1.0), Part(1, 1, "a1", "host", 1, 3.0)]],
    # Two ways: at once, or in two steps of which the first is loaded on either of two processors.
    "b": [
        [
            Part(0, 1, "b01", "host", 2, 2.0),
            Part(0, 0, "b0", "host", 1, 0.5),
            Part(0, 0, "b0x", "host", 2, 0.25),
            Part(1, 1, "b1", "host", 1, 0.5),
        ]
    ],
    "c": [[Part(0, 0, "c", "host", 2, 1.0)], [Part(0, 0, "c@small", "host", 1, 1.5)]],
}


def best_s(ways: Ways, room: float, sequence: str, in_flight: int) -> float:
    """Return the least seconds of loading of all schedules there are, by Dijkstra's search."""
    places = {part.place: part for way in ways.values() for part in chain(*way)}
    size = {place: part.size for place, part in places.items()}
    sets = [
        frozenset(each)
        for n in range(len(places) + 1)
        for each in combinations(places, n)
        if sum(map(size.__getitem__, each)) <= room
    ]
    order = count()
    begin = tuple(sorted((model, -1, 0) for model in sequence[:in_flight]))
    heap = [(0.0, next(order), min(in_flight, len(sequence)), begin, held) for held in sets]
    done = set[object]()
    while heap:
        cost, _, issued, waiting, held = heapq.heappop(heap)
        if (issued, waiting, held) in done:
            continue
        done.add((issued, waiting, held))
        if not waiting:
            return cost
        for then_issued, then in _steps(ways, sequence, issued, waiting, held):
            heapq.heappush(heap, (cost, next(order), then_issued, then, held))
        for place, part in places.items():
            if place not in held:
                for kept in sets:
                    if kept <= held and sum(map(size.__getitem__, kept)) + part.size <= room:
                        then_held = kept | {place}
                        item = (cost + part.load_s, next(order), issued, waiting, then_held)
                        heapq.heappush(heap, item)
    raise AssertionError("no schedule serves everything")


def _steps(
    ways: Ways,
    sequence: str,
    issued: int,
    waiting: tuple[tuple[str, int, int], ...],
    held: frozenset[object],
) -> Iterator[tuple[int, tuple[tuple[str, int, int], ...]]]:
    """Yield what follows from running a part of a request that is loaded."""
    for at in range(len(waiting)):
        model, variant, boundary = waiting[at]
        rest = waiting[:at] + waiting[at + 1 :]
        for number, way in enumerate(ways[model]):
            if variant not in (-1, number):
                continue
            end = 1 + max(part.last for part in way)
            for part in way:
                if part.place not in held or part.first != boundary:
                    continue
                if part.last + 1 < end:
                    yield issued, tuple(sorted((*rest, (model, number, part.last + 1))))
                elif issued < len(sequence):
                    new = (sequence[issued], -1, 0)
                    yield issued + 1, tuple(sorted((*rest, new)))
                else:
                    yield issued, rest


@settings(max_examples=50, deadline=None)
@given(
    sequence=st.text("abc", min_size=1, max_size=6),
    room=st.sampled_from([2, 3, 4]),
    in_flight=st.integers(1, 3),
    ways=st.sampled_from([WHOLE, CUT]),
)
def test_no_schedule_loads_for_less(sequence: str, room: int, in_flight: int, ways: Ways) -> None:
    least = best_s(ways, room, sequence, in_flight)
    for length in range(1, len(sequence) + 1):
        phases = phases_of(sequence, length)
        found = least_loading_s(ways, {"host": room}, phases, in_flight - 1)
        assert found <= least + 1e-6, f"phases of {length}"
    at_once = least_loading_s(ways, {"host": room}, phases_of(sequence, len(sequence)))
    assert at_once <= best_s(ways, room, sequence, len(sequence)) + 1e-6


@pytest.mark.parametrize(
    ("sequence", "room", "in_flight", "length", "share"),
    [("abc", 3, 3, 3, 1.0), ("abcabc", 4, 6, 6, 0.5), ("abcabcabc", 4, 1, 3, 0.18)],
)
def test_it_is_not_without_worth(
    sequence: str, room: int, in_flight: int, length: int, share: float
) -> None:
    least = best_s(WHOLE, room, sequence, in_flight)
    waiting = 0 if length == len(sequence) else in_flight - 1
    found = least_loading_s(WHOLE, {"host": room}, phases_of(sequence, length), waiting)
    assert share * least <= found + 1e-9 <= least + 1e-6


def test_one_phase_of_whole_models_is_exact_where_sizes_fill_the_room() -> None:
    phase = [{"a": 5, "b": 5, "c": 5}]
    assert least_loading_s(WHOLE, {"host": 5}, phase) == pytest.approx(0.0, abs=1e-9)
    assert least_loading_s(WHOLE, {"host": 3}, phase) == pytest.approx(1.0)
    assert best_s(WHOLE, 3, "abcabcabcabcabc", 15) == 1.0


def test_what_may_wait_need_not_be_loaded_for() -> None:
    phase = [{"a": 1, "b": 1, "c": 3}]
    assert least_loading_s(WHOLE, {"host": 3}, phase, 0) == pytest.approx(1.0)
    assert least_loading_s(WHOLE, {"host": 3}, phase, 1) == pytest.approx(0.0, abs=1e-9)


def test_models_that_share_a_place_need_it_once_between_them() -> None:
    shared = dict.fromkeys(("x", "y"), WHOLE["a"])
    apart = {name: [[Part(0, 0, name, "host", 2, 1.0)]] for name in ("x", "y")}
    phases = [{"x": 1, "y": 1}] * 3
    assert least_loading_s(shared, {"host": 2}, phases) == pytest.approx(0.0, abs=1e-9)
    assert least_loading_s(apart, {"host": 2}, phases) == pytest.approx(3.0)


def test_memories_without_a_budget_and_models_that_are_always_there_cost_nothing() -> None:
    ways = {**WHOLE, "d": [[Part(0, 0, "d", "gpu", 99, 99.0)]], "e": [[]], "f": []}
    phase = [{"d": 1, "e": 1, "f": 1, "g": 1}]
    assert least_loading_s(ways, {"host": 2}, phase) == pytest.approx(0.0, abs=1e-9)
    both = least_loading_s(ways, {"host": 2, "gpu": 0}, phase)
    assert both == pytest.approx(99.0)
