"""Extra cuts: short enough, balanced, and where few bytes cross."""

from __future__ import annotations

from itertools import combinations, pairwise

from hypothesis import given
from hypothesis import strategies as st

from coinfer.graph.cuts import balanced_cuts, limiting_cuts

MIB = 2**20


def test_limited_parts_end_where_few_bytes_cross() -> None:
    costs = [1.0] * 6
    crossing = [0, 9 * MIB, MIB, 9 * MIB, 9 * MIB, MIB]
    assert limiting_cuts([costs], crossing, [3.0]) == (2, 5)


def test_no_cut_where_nothing_is_too_long() -> None:
    assert limiting_cuts([[1.0, 1.0]], [0, 0], [2.0]) == ()


def test_a_single_item_above_the_limit_is_a_part_of_its_own() -> None:
    assert limiting_cuts([[1.0, 9.0, 1.0]], [0, 0, 0], [2.0]) == (1, 2)


def test_every_row_has_its_own_limit() -> None:
    rows = [[1.0] * 4, [1.0, 1.0, 1.0, 5.0]]
    assert limiting_cuts(rows, [0] * 4, [4.0, 5.0]) == (3,)


def test_a_sequence_without_limits_is_not_cut() -> None:
    assert limiting_cuts([], [0] * 5, []) == ()


COSTS = st.lists(st.floats(0.01, 5), min_size=1, max_size=8)


@given(costs=COSTS, limit=st.floats(0.5, 10), data=st.data())
def test_limited_cuts_are_the_cheapest_of_all(
    costs: list[float], limit: float, data: st.DataObject
) -> None:
    crossing = data.draw(st.lists(st.integers(0, 100), min_size=len(costs), max_size=len(costs)))

    def price(cuts: tuple[int, ...]) -> float:
        return sum(crossing[cut] + 256 * 1024 for cut in cuts)

    def fits(cuts: tuple[int, ...], most: float = limit) -> bool:
        parts = [costs[a:b] for a, b in pairwise((0, *cuts, len(costs)))]
        return all(len(part) == 1 or sum(part) <= most for part in parts)

    places = range(1, len(costs))
    ways = (cuts for count in range(len(costs)) for cuts in combinations(places, count))
    got = limiting_cuts([costs], crossing, [limit])
    assert fits(got, limit * (1 + 1e-6))  # sums are rounded
    assert price(got) <= min(price(cuts) for cuts in ways if fits(cuts))


def test_balanced_parts_may_be_a_little_uneven_for_fewer_bytes() -> None:
    crossing = [0, 9, 9, 9, 1, 9, 9, 9, 9]
    assert balanced_cuts([1.0] * 9, crossing, 2) == (4,)
    assert balanced_cuts([1.0] * 9, [0, 1, *[9] * 7], 2) in {(4,), (5,)}


def test_balanced_parts_are_not_tiny_where_fewer_bytes_cross() -> None:
    assert balanced_cuts([1.0] * 10, [0, 1, 9, 9, 9, 9, 9, 9, 9, 1], 2)[0] in range(3, 8)


def test_balance_gives_way_where_one_item_is_most_of_the_cost() -> None:
    assert balanced_cuts([1.0, 50.0, 1.0], [0, 5, 9], 2) == (1,)


def test_there_are_never_more_parts_than_items() -> None:
    assert balanced_cuts([1.0, 2.0], [0, 0], 5) == (1,)
    assert balanced_cuts([1.0], [0], 5) == ()
    assert balanced_cuts([1.0, 2.0], [0, 0], 1) == ()


@given(costs=COSTS, pieces=st.integers(1, 6))
def test_balanced_parts_are_as_many_as_asked_and_none_is_needlessly_long(
    costs: list[float], pieces: int
) -> None:
    cuts = balanced_cuts(costs, [0] * len(costs), pieces)
    wanted = min(pieces, len(costs))
    assert len(cuts) == wanted - 1
    longest = max(sum(costs[a:b]) for a, b in pairwise((0, *cuts, len(costs))))
    least = min(
        max(sum(costs[a:b]) for a, b in pairwise((0, *ways, len(costs))))
        for ways in combinations(range(1, len(costs)), wanted - 1)
    )
    assert longest <= max(least, 1.4 * sum(costs) / wanted) * (1 + 1e-6)
