"""A processor that only one of those that wait can do with is left to it, if that costs none."""

from __future__ import annotations

import pytest

from coinfer.policies import make_policy
from coinfer.policies.rivals import Rivals
from coinfer.testing.machine import VirtualMachine, processors, request

FRAMES = {"npu": 1.18e-3, "gpu": 1.21e-3}
SEGMENTS = {"npu": 4.87e-3, "gpu": 15.97e-3}


def placed(
    seconds: dict[str, dict[str, float]], *asked: tuple[str, float], together: bool = True
) -> dict[str, str]:
    """Let requests come, with these deadlines; return where those run that start at once."""
    names = sorted({name for row in seconds.values() for name in row})
    machine = VirtualMachine(processors(*names), make_policy("earliest_finish"), seconds)
    for model, deadline_s in asked:
        is_followed = together and (model, deadline_s) != asked[-1]
        machine.submit(model, deadline_s=deadline_s, is_followed=is_followed)
    return {e.variant: e.processor for e in machine.running.values()}


def test_the_most_urgent_leaves_the_only_fast_processor_to_who_needs_it() -> None:
    # XRBench's outdoor activity A at 90 %: the frames took the NPU for 2 % less time, and every
    # tenth frame of the other camera was late.
    seconds = {"frames": FRAMES, "segments": SEGMENTS}
    found = placed(seconds, ("frames", 1.63e-3), ("segments", 4.9e-3))
    assert found == {"frames": "gpu", "segments": "npu"}


@pytest.mark.parametrize(
    ("deadlines", "why"),
    [
        ((1.20e-3, 4.9e-3), "it would be late elsewhere"),
        ((1.63e-3, 4.0e-3), "the other one is late in any case"),
        ((1.63e-3, 17.0e-3), "the other one is in time elsewhere"),
        ((1.63e-3, float("inf")), "the other one has no deadline"),
    ],
)
def test_it_takes_the_fastest_where_it_harms_nobody_by_it(
    deadlines: tuple[float, float], why: str
) -> None:
    seconds = {"frames": FRAMES, "segments": SEGMENTS}
    found = placed(seconds, *zip(seconds, deadlines, strict=True))
    assert found["frames"] == "npu", why


DEPTH = {"npu": 2.02e-3, "gpu": 4.59e-3, "cpu": 40.99e-3}
PLANES = {"npu": 9.07e-3, "gpu": 32.78e-3, "cpu": 322.9e-3}


def test_it_leaves_it_to_who_would_only_wait_for_it() -> None:
    # XRBench's AR assistant at 90 %: the NPU must be busy for 98 % of the time with what nothing
    # else can do. What `depth` took of it made each third frame of `planes` late.
    seconds = {"depth": DEPTH, "planes": PLANES}
    found = placed(seconds, ("depth", 6.28e-3), ("planes", 12.55e-3))
    assert found == {"depth": "gpu", "planes": "npu"}


@pytest.mark.parametrize(
    ("depth", "asked", "why"),
    [
        (DEPTH, ("depth", 4.5e-3), "it would be late elsewhere"),
        (DEPTH | {"gpu": 6.1e-3}, ("depth", 6.28e-3), "it would take three times as long"),
        (DEPTH, ("depth", float("inf")), "it has all the time, and what is urgent goes first"),
    ],
)
def test_it_takes_the_fastest_where_leaving_it_would_cost_much(
    depth: dict[str, float], asked: tuple[str, float], why: str
) -> None:
    found = placed({"depth": depth, "planes": PLANES}, asked, ("planes", 12.55e-3))
    assert found["planes" if asked[1] == float("inf") else "depth"] == "npu", why


def test_it_leaves_it_only_for_one_that_is_free() -> None:
    seconds = {"long": {"gpu": 1e-3}, "depth": DEPTH, "planes": PLANES}
    found = placed(
        seconds, ("long", 1.5e-3), ("depth", 6.28e-3), ("planes", 12.55e-3), together=True
    )
    assert found == {"long": "gpu", "depth": "npu"}


def test_what_was_given_a_place_counts_no_more() -> None:
    # The first waits for the busy one and has it reserved; the second is not held up by that.
    seconds = {
        "long": {"npu": 2.0},
        "first": {"npu": 1.0, "gpu": 9.0},
        "second": {"gpu": 1.0, "npu": 1.5},
    }
    found = placed(seconds, ("long", 3.0), ("first", 3.5), ("second", 4.0), together=False)
    assert found == {"long": "npu", "second": "gpu"}


def test_one_is_held_against_what_is_busy_and_not_against_the_others() -> None:
    machine = VirtualMachine(
        processors("npu", "gpu"),
        make_policy("earliest_finish"),
        {"a": FRAMES, "b": SEGMENTS, "c": SEGMENTS},
    )
    view = machine.dispatcher.view
    npu = {"npu"}
    for model, deadline_s in (("b", 4.9e-3), ("c", 5.0e-3)):
        machine.submit(model, deadline_s=deadline_s, is_followed=True)
    rivals = Rivals(view)
    assert rivals
    assert rivals.n_late({}, npu, 1e-3) == 2
    assert rivals.n_late({}, npu, 1e-5) == 0
    assert rivals.n_late({}, {"gpu"}, 1e-3) == 0
    assert rivals.n_late({"npu": 1e-3}, npu, 2e-3) == 0  # they are late by what is busy
    assert rivals.n_held({}, npu) == 2
    assert rivals.n_held({}, {"gpu"}) == 0
    rivals.settle(0)
    assert rivals.n_late({}, npu, 1e-3) == 1
    rivals.settle(1)
    assert not rivals


def test_those_of_a_lower_priority_are_no_rivals_and_what_is_late_has_none() -> None:
    machine = VirtualMachine(
        processors("npu", "gpu"), make_policy("earliest_finish"), {"a": FRAMES, "b": SEGMENTS}
    )
    machine.submit("b", deadline_s=4.9e-3, priority=1, is_followed=True)
    view, npu = machine.dispatcher.view, {"npu"}
    for priority, found in ((0, 1), (1, 1), (2, 0)):
        rivals = Rivals(view).of(request("a", id=9, deadline_s=2e-3, priority=priority))
        assert rivals is not None
        assert rivals.n_late({}, npu, 1e-3) == found
    assert Rivals(view).of(request("a", id=9, deadline_s=0.0)) is None
    assert Rivals(view).of(request("b", id=0, deadline_s=4.9e-3)) is None  # itself
