"""Invariants: what is true of the state between two events. Changes nothing; for tests."""

from __future__ import annotations

import math

from coinfer.core.commands import Execution
from coinfer.core.lane import Lane
from coinfer.core.state import State
from coinfer.machine.span import Span

__all__ = ["check_state"]


def check_state(state: State) -> None:
    """Assert the invariants: every request is in one place, every unit has one user."""
    assert not state.lanes.keys() & state.unready.keys(), "a lane is ready and is not"
    for lane in (*state.lanes, *state.unready):
        lane.check()
        assert len(lane), f"empty lane {lane.key} is listed"
    in_lanes = sum(len(lane) for lane in (*state.lanes, *state.unready))
    assert in_lanes == len(state.waiting), "lanes and waiting list disagree"
    assert state.waiting.keys() <= state.requests.keys(), "an answered request still waits"
    _check_requests(state)
    _check_units(state)
    _check_lanes(state)
    _check_routes(state)
    _check_forks(state)
    _check_offers(state)
    _check_residency(state)
    if state.express is not None:
        state.express.check(state.running)


def _check_requests(state: State) -> None:
    assert state.failed.keys() <= state.requests.keys(), "an answered request's failures are kept"
    for number, progress in state.requests.items():
        waits = number in state.waiting
        runs = progress.execution is not None
        assert waits != runs, f"request {number}: waiting {waits}, running {runs}"
        assert waits == progress.waits, f"request {number}: waits"
        is_listed = progress.lane in state.lanes or progress.lane in state.unready
        assert not waits or is_listed, f"request {number}: lane"
        if progress.execution is not None:
            executed = state.running[progress.execution].requests
            assert progress.request in executed, f"request {number} not in its execution"
    for number, execution in state.running.items():
        for request in execution.requests:
            runs_in = state.requests[request.id].execution
            is_known = runs_in == number or number in state.running_forks
            assert is_known, f"{number}: {request.id} is not"


def _check_units(state: State) -> None:
    used: dict[str, int] = {}
    for execution in state.running.values():
        for unit in state.units_of[execution.processor]:
            assert unit not in used, f"unit {unit} is used twice"
            used[unit] = execution.id
    assert used == state.unit_user(), f"units: {used} != {state.unit_user()}"
    bits = sum(state.bits_of[execution.processor] for execution in state.running.values())
    assert bits == state.used, f"units in use: {bits:b} != {state.used:b}"
    alone = [n for n, p in state.in_service.items() if p.units.isdisjoint(used)]
    assert alone == list(state.idle()), f"idle: {alone} != {state.idle()}"


def _check_lanes(state: State) -> None:
    for lane in state._all_lanes.values():
        marks = lane.is_open, lane.is_plain, lane.is_plain_alone
        state._mark(lane)
        found = lane.is_open, lane.is_plain, lane.is_plain_alone
        assert found == marks, f"lane {lane.key}: marks"
        able = any(state.can_run(lane, name) for name in state.in_service)
        assert able or not lane.is_served, f"lane {lane.key}: nothing serves it"
        assert lane.variant in state._known[lane.model], f"lane {lane.key}: variant"
        units = state.units[lane.variant]
        assert lane.fused == state.fused_of(lane), f"lane {lane.key}: fused variants"
        is_whole = units == 1 or lane.key.position >= units
        assert (lane.routes is None) == is_whole, f"lane {lane.key}: routes"
        _check_variant(state, lane)


def _check_variant(state: State, lane: Lane) -> None:
    """Assert that the variant is open at the first unit only, and which ones may be put in."""
    key, names = lane.key, state.variants[lane.model]
    assert bool(key.variant) == bool(key.position), f"lane {key}: variant"
    if not state.is_varied(lane):
        assert not lane.cheaper, f"lane {key}: other variants"
        return
    assert not lane.is_plain_alone, f"lane {key}: what starts must be offered"
    anew = Lane(key)
    state._equip(anew)
    assert anew.variant == lane.variant, f"lane {key}: {lane.variant} is shown"
    for known, right in zip((lane, *lane.cheaper), (anew, *anew.cheaper), strict=True):
        assert known.variant == right.variant, f"lane {key}: {known.variant}"
        assert dict(known.seconds) == dict(right.seconds), f"lane {key}: {known.variant}"
    less = names[names.index(lane.variant) + 1 :]
    assert tuple(each.variant for each in lane.cheaper) == less, f"lane {key}: cheaper ones"


def _check_routes(state: State) -> None:
    for (model, batch, shape, allowed), routes in state.routes.items():
        assert set(allowed) <= state.in_service.keys(), f"{model}: a lost processor has routes"
        anew = state.new_routes(model, batch, shape, allowed)
        assert (routes.forked is None) == (anew.forked is None), f"{model}: forks"
        for position in range(routes.units):
            assert routes.seconds(position) == anew.seconds(position), f"{model}: {position}"
            if routes.forked is not None and anew.forked is not None:
                known_s, right_s = routes.forked.rest_s(position), anew.forked.rest_s(position)
                assert known_s == right_s, f"{model}: {position}, with forks"


def _check_forks(state: State) -> None:
    for number, split in state.running_forks.items():
        assert number in split.running, f"execution {number} of a split has ended"
        assert split.progress.execution in split.running, "a split request runs elsewhere"
        execution = state.running[number]
        side = split.fork.left if number == split.left else split.fork.right
        assert execution.requests == (split.progress.request,), "others are split along"
        assert execution.span == side, "its span"


def _check_residency(state: State) -> None:
    residency = state.residency
    for execution in state.running.values():
        place = residency.place(execution.variant, execution.span, execution.processor)
        assert place is None or place.is_loaded, f"execution {execution.id}: it is not loaded"
    running = [residency.place(e.variant, e.span, e.processor) for e in state.running.values()]
    for place in residency.places.values():
        assert place.running == running.count(place), f"place {place.id}: {place.running} running"
        is_held = place.id in residency.pool(place).held
        assert is_held == (place.is_loaded or place.is_loading), f"place {place.id}: its room"
    assert residency.is_tight or all(p.is_loaded for p in residency.places.values()), "not tight"
    for name, pool in residency.pools.items():
        in_use = [p for p in residency.places.values() if p.running or p.is_loading]
        used = math.fsum(p.size for p in in_use if p.pool == name)  # a budget may become smaller
        # A place that is loaded for a model that left meanwhile has its room until that has ended.
        used += math.fsum(s for n, s in pool.held.items() if n not in residency.places)
        assert pool.taken <= max(pool.capacity, used), f"memory {name}: {pool.taken} bytes taken"
    assert residency.is_tight or not state.unready, "a lane is not ready, but everything is loaded"
    lent = any(lane.is_lent for lane in state._all_lanes.values())
    assert residency.is_tight or not lent, "something is lent, but everything is loaded"


def _check_offers(state: State) -> None:
    """Assert that what runs is what was offered."""
    assert state.offered.keys() <= state.running.keys(), "an offer of what has ended"
    for number, execution in state.running.items():
        offer = state.offered.get(number)
        if offer is None:
            if state.express is None or number not in state.express.running:
                assert len(execution.requests) == 1, f"execution {number}: riders, not offered"
                assert not execution.span.first, f"execution {number}: a part, not offered"
            continue
        head, *riders = execution.requests
        assert head.model == offer.lane.model, f"execution {number}: another model"
        if execution.variant not in state._known[head.model]:
            _check_fused(execution)
        assert tuple(riders) == offer.riders, f"execution {number}: other riders"
        runs = execution.variant, execution.span, execution.processor, execution.expected_s
        offered = offer.variant, offer.span, offer.processor, offer.expected_s
        assert runs == offered, f"execution {number}: {runs} runs, {offered} was offered"
        assert offer.ready_s <= execution.started_s, f"execution {number}: too early"


def _check_fused(execution: Execution) -> None:
    """Assert that a fused run serves one request of each of several models, all alike, whole."""
    number, requests = execution.id, execution.requests
    models = {request.model for request in requests}
    assert len(models) == len(requests), f"execution {number}: two of one model"
    kinds = {(request.batch, request.shape, request.sizes) for request in requests}
    assert len(kinds) == 1, f"execution {number}: of other sizes"
    assert execution.span == Span(), f"execution {number}: a part of a fused variant"
