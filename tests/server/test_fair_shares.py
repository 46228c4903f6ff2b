"""Fair shares: no tenant is further from its weight's share than one request of each."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coinfer.server.fair_shares import FairShares
from coinfer.server.tenant_request import TenantRequest

COSTS = {"small": 1.0, "middle": 4.0, "large": 20.0}
WEIGHTS = st.dictionaries(
    st.sampled_from("abcd"), st.sampled_from([0.25, 1.0, 2.0, 3.0, 7.5]), min_size=2
)


def backlogged(weights: dict[str, float], models: dict[str, list[str]]) -> FairShares:
    shares = FairShares(weights, COSTS.__getitem__)
    for tenant in weights:
        for number, model in enumerate(models[tenant]):
            shares.add(TenantRequest(tenant, model, number))
    return shares


@settings(max_examples=80, deadline=None)
@given(
    weights=WEIGHTS,
    models=st.fixed_dictionaries(
        {
            each: st.lists(st.sampled_from(sorted(COSTS)), min_size=40, max_size=40)
            for each in "abcd"
        }
    ),
    factors=st.lists(st.sampled_from([0.5, 1.0, 1.0, 2.0]), min_size=160, max_size=160),
)
def test_over_any_backlogged_interval_shares_are_within_a_request_of_the_weights(
    weights: dict[str, float], models: dict[str, list[str]], factors: list[float]
) -> None:
    shares = backlogged(weights, models)
    taken = dict.fromkeys(weights, 0.0)
    moments = [dict(taken)]
    most = 2.0 * max(COSTS.values())
    while all(shares.held_of(tenant) for tenant in weights):
        request = shares.take()
        assert request is not None
        request.spent_s = COSTS[request.model] * factors[len(moments)]
        shares.settle(request)
        taken[request.tenant] += request.spent_s / weights[request.tenant]
        moments.append(dict(taken))
    for one, other in combinations(weights, 2):
        gaps = [moment[one] - moment[other] for moment in moments]
        # The theorem of start-time fair queueing: over an interval, not only from the beginning.
        assert max(gaps) - min(gaps) <= most / weights[one] + most / weights[other] + 1e-9


def test_a_tenant_that_comes_later_gets_its_share_and_no_more() -> None:
    shares = FairShares({"a": 1.0, "b": 1.0}, lambda _: 1.0)
    for number in range(60):
        shares.add(TenantRequest("a", "m", number))
    assert [taken(shares) for _ in range(20)] == ["a"] * 20
    for number in range(20):
        shares.add(TenantRequest("b", "m", number))
    assert sum(taken(shares) == "a" for _ in range(10)) in (4, 5, 6)


def taken(shares: FairShares) -> str:
    request = shares.take()
    assert request is not None
    return request.tenant


def test_among_the_requests_of_a_tenant_priority_and_then_deadlines_decide() -> None:
    shares = FairShares({"a": 1.0}, lambda _: 1.0)
    said = [(0, 9.0), (0, 3.0), (1, 9.0), (0, 9.0)]
    for number, (priority, before_s) in enumerate(said):
        name = f"m{number % 2}"
        shares.add(TenantRequest("a", name, number, priority=priority, before_s=before_s))
    order = [shares.take() for _ in said]
    assert [request.number for request in order if request is not None] == [2, 1, 0, 3]
    assert shares.take() is None


def test_what_goes_because_only_it_may_go_costs_nothing() -> None:
    shares = FairShares({"a": 1.0, "b": 1.0}, lambda _: 1.0)
    for number in range(40):
        shares.add(TenantRequest("a", "cpu", number))
        shares.add(TenantRequest("b", "gpu", number))
    for _ in range(30):
        assert shares.take(lambda model: model == "cpu").tenant == "a"  # type: ignore[union-attr]
    assert sorted(taken(shares) for _ in range(10)) == ["a"] * 5 + ["b"] * 5


def beside(shares: FairShares, *models: str) -> str:
    """Take what goes while only these models may, and return whose it was."""
    request = shares.take(lambda model: model in models)
    assert request is not None
    assert request.is_beside
    request.spent_s = request.charged_s
    shares.settle(request)
    return request.tenant


def test_what_goes_beside_the_turns_is_shared_by_weight() -> None:
    shares = FairShares({"a": 1.0, "b": 3.0, "c": 1.0}, lambda _: 1.0)
    for number in range(100):
        shares.add(TenantRequest("a", "gpu", number))
        shares.add(TenantRequest("b", "gpu", number))
        shares.add(TenantRequest("c", "cpu", number))
    gone = "".join(beside(shares, "gpu") + beside(shares, "cpu") for _ in range(40))
    assert gone.count("b") == 3 * gone.count("a") == 30


@settings(max_examples=40, deadline=None)
@given(
    weights=WEIGHTS.filter(lambda weights: {"a", "b"} <= set(weights)),
    may=st.lists(
        st.sampled_from(["gpu", "gpu", "cpu", "cpu gpu", "npu gpu"]), min_size=200, max_size=200
    ),
    factors=st.lists(st.sampled_from([0.5, 1.0, 2.0]), min_size=200, max_size=200),
    returns=st.integers(3, 20),
)
def test_beside_the_turns_too_shares_are_within_a_request_of_the_weights(
    weights: dict[str, float], may: list[str], factors: list[float], returns: int
) -> None:
    """`a` and `b` always want the same; `c` also elsewhere, and `d` comes now and then."""
    shares = FairShares(weights, lambda _: 1.0)
    for number in range(200):
        for tenant, model in [("a", "gpu"), ("b", "gpu"), ("c", "gpu"), ("c", "cpu")]:
            if tenant in weights:
                shares.add(TenantRequest(tenant, model, number))
    taken = dict.fromkeys(weights, 0.0)
    gaps = [0.0]
    for number, (models, factor) in enumerate(zip(may, factors, strict=True)):
        if "d" in weights and number % returns == 0:
            shares.add(TenantRequest("d", "gpu", 1000 + number))
        request = shares.take(lambda model, models=models: model in models.split())
        if request is None:
            continue
        request.spent_s = factor
        shares.settle(request)
        taken[request.tenant] += request.spent_s / weights[request.tenant]
        gaps.append(taken["a"] - taken["b"])
    assert max(gaps) - min(gaps) <= 4.0 / weights["a"] + 4.0 / weights["b"] + 1e-9


def test_what_nobody_else_could_have_is_not_held_against_a_tenant_where_others_can() -> None:
    shares = FairShares({"a": 1.0, "b": 3.0}, lambda _: 1.0)
    for number in range(100):
        shares.add(TenantRequest("a", "cpu", number))
        shares.add(TenantRequest("b", "gpu", number))
    assert {beside(shares, "cpu") for _ in range(50)} == {"a"}
    gone = "".join(beside(shares, "cpu", "gpu") for _ in range(40))
    assert gone.count("a") in (9, 10, 11)


def test_what_a_tenant_did_not_ask_for_beside_the_turns_is_not_made_up_for() -> None:
    shares = FairShares({"a": 1.0, "b": 9.0, "c": 5.0}, lambda _: 1.0)
    for number in range(300):
        shares.add(TenantRequest("a", "gpu", number))
        shares.add(TenantRequest("b", "gpu", number))
    gone = ""
    for number in range(180):
        if number % 9 == 0:  # less than its share, which must not cost `a` its turns
            shares.add(TenantRequest("c", "gpu", 1000 + number))
        gone += beside(shares, "gpu")
    assert gone.count("c") == 20
    assert gone.count("a") in (15, 16, 17)


def test_what_began_elsewhere_than_was_thought_is_charged_after_all() -> None:
    shares = FairShares({"a": 1.0, "b": 1.0}, lambda _: 1.0)
    for number in range(20):
        shares.add(TenantRequest("a", "m", number))
        shares.add(TenantRequest("b", "n", number))
    request = shares.take(lambda model: model == "m")
    assert request is not None
    request.is_misplaced, request.spent_s = True, 3.0
    shares.settle(request)
    assert "".join(taken(shares) for _ in range(6)) == "bbbaba"


def test_what_is_ahead_counts_the_turns_of_others_but_not_more_than_they_have() -> None:
    shares = FairShares({"a": 1.0, "b": 3.0}, lambda _: 1.0)
    assert shares.ahead_s("a", 0, 1.0) == 0.0
    for number in range(4):
        shares.add(TenantRequest("a", "m", number))
    for number in range(10):
        shares.add(TenantRequest("b", "m", number))
    assert shares.ahead_s("a", 0, 1.0) == 4.0 + 10.0  # b has but 10 of its 15
    assert shares.ahead_s("a", 1, 1.0) == 3.0  # before an urgent one of `a` only b's turn
    assert shares.ahead_s("b", 0, 1.0) == pytest.approx(10.0 + (10 + 1) / 3)


def test_requests_that_go_in_between_leave_nothing_behind() -> None:
    shares = FairShares({"a": 1.0}, lambda _: 1.0)
    for number in range(5_000):
        request = TenantRequest("a", "m", number)
        shares.add(request)
        if number:
            shares.remove(request)
    [heap] = shares._flows["a"].heaps.values()
    assert len(heap._entries) < 200
    assert shares.n_held == 1
    assert taken(shares) == "a"
