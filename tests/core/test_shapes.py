"""Requests of several classes of sizes in the core: apart in lanes, times and learning."""

from __future__ import annotations

from coinfer.core.commands import Run
from coinfer.core.dispatcher import Dispatcher
from coinfer.core.events import Arrived, Finished, ModelLoaded
from coinfer.core.request import Request
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.machine.span import Span
from coinfer.policies import make_policy

P, Q = (Processor(name=n, backend="null", units=frozenset({n})) for n in ("p", "q"))


def dispatcher(profile: Profile, policy: str = "earliest_finish") -> Dispatcher:
    core = Dispatcher([P, Q], make_policy(policy))
    core.handle(ModelLoaded("m", 1, profile), 0.0)
    return core


def started(core: Dispatcher, request: Request) -> Run:
    [run] = [each for each in core.handle(Arrived(request), 0.0) if isinstance(each, Run)]
    return run


def test_each_class_goes_where_it_is_quick() -> None:
    profile = Profile(
        {
            ProfileKey("m", name, 1, Span(), shape): Measurement(seconds=(seconds,))
            for name, shape, seconds in (
                ("p", 0, 0.01),
                ("p", 9, 1.0),
                ("q", 0, 0.1),
                ("q", 9, 0.2),
            )
        }
    )
    for shape, where in ((0, "p"), (9, "q")):
        core = dispatcher(profile)
        run = started(core, Request(0, "m", 0.0, shape=shape))
        assert run.execution.processor == where


def test_times_between_and_beyond_what_was_measured_follow_the_work() -> None:
    profile = Profile(
        {
            ProfileKey("m", "p", 1, Span(), shape): Measurement(seconds=(seconds,))
            for shape, seconds in ((0, 1.0), (2, 1.5))
        }
    )
    found = [profile.expected_s("m", "p", shape=shape) for shape in (-1, 0, 1, 2, 3)]
    between = 1.0 + 0.5 * (1.25 - 1) / (1.25**2 - 1)
    assert [round(each or 0, 6) for each in found] == [
        0.8, 1.0, round(between, 6), 1.5, 1.875
    ]  # fmt: skip


def test_what_is_learnt_of_one_class_says_nothing_of_another() -> None:
    core = dispatcher(Profile.from_seconds({"m": {"p": 0.01}}))
    for shape in (0, 4):
        run = started(core, Request(shape, "m", 0.0, shape=shape))
        core.handle(Finished(run.execution.id, 0.02 if shape else 0.01), 0.03)
    row = core._state.estimates.row
    assert row("m", Span(), 1, 0)["p"] == 0.01
    assert row("m", Span(), 1, 4)["p"] < 0.01 * 1.25**4
    core.check()


def test_requests_of_two_classes_do_not_share_a_lane() -> None:
    core = dispatcher(Profile.from_seconds({"m": {"p": 0.01}}), "fcfs")
    for number, shape in enumerate((0, 0, 3, 0, 3)):
        core.handle(Arrived(Request(number, "m", 0.0, shape=shape)), 0.0)
    assert sorted((lane.key.shape, len(lane)) for lane in core.view.lanes()) == [(0, 2), (3, 2)]
    core.check()
