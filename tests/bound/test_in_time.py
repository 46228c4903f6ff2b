"""What can be in time in a hyperperiod: by hand, against trying all, and above every simulation."""

from __future__ import annotations

from itertools import permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coinfer.bound.in_time import Job, most_in_time
from coinfer.experiments.deadline_bound import deadline_bound
from coinfer.experiments.promises import IN_TIME
from coinfer.machine.processor import Processor
from coinfer.plan import Plan
from coinfer.policies import make_policy
from coinfer.sim import simulate
from coinfer.workload.scenario import Scenario
from sim.machines import machine

P = Processor(name="p", backend="null", units=frozenset({"u"}))
Q = Processor(name="q", backend="null", units=frozenset({"v"}))
WIDE = Processor(name="wide", backend="null", units=frozenset({"u", "v"}))


def tried(jobs: list[Job], processors: list[Processor]) -> int:
    """The most in time of all orders and processors, each job as early as its order allows."""
    units = {p.name: p.units for p in processors}
    best = 0
    for order in permutations(range(len(jobs))):
        for places in product(*(["", *job.seconds] for job in jobs)):
            free = dict.fromkeys("uv", 0.0)
            ends: dict[int, float] = {}
            for number in order:
                job, place = jobs[number], places[number]
                if not place or (job.after is not None and job.after not in ends):
                    continue
                start_s = max(job.release_s, *(free[unit] for unit in units[place]))
                if job.after is not None:
                    start_s = max(start_s, ends[job.after])
                end_s = start_s + job.seconds[place]
                if end_s <= job.deadline_s:
                    free.update(dict.fromkeys(units[place], end_s))
                    ends[number] = end_s
            best = max(best, len(ends))
    return best


JOBS = st.lists(
    st.builds(
        lambda release, room, seconds: Job(release, release + room, seconds),
        st.integers(0, 6).map(float),
        st.integers(1, 6).map(float),
        st.dictionaries(st.sampled_from(["p", "q", "wide"]), st.integers(1, 5).map(float)),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(jobs=JOBS, chained=st.booleans())
def test_it_is_what_trying_everything_finds(jobs: list[Job], chained: bool) -> None:
    if chained and len(jobs) > 1:
        jobs[-1] = jobs[-1]._replace(after=0)
    processors = [P, Q, WIDE]
    assert most_in_time(jobs, processors) == tried(jobs, processors)


LATE = {"a": {"source": "zoo:lenet", "deadline": 1.0}}


def load(**fields: object) -> Scenario:
    given_ = {"models": {"a": {"source": "zoo:lenet", "deadline": "period", "on_late": "drop"}}}
    return Scenario.model_validate({**given_, "arrivals": {"a": {"periodic": 10.0}}, **fields})


def test_two_rates_are_scheduled_over_their_hyperperiod() -> None:
    spec = {"source": "zoo:lenet", "deadline": "period", "on_late": "drop"}
    wanted = load(
        models={"a": spec, "b": spec},
        arrivals={"a": {"periodic": 30.0}, "b": {"periodic": 20.0}},
        duration=2.0,
    )
    plan = Plan.of(machine({"a": {"p": 0.02}, "b": {"p": 0.03}}))
    found = deadline_bound(wanted, plan)
    assert found == 0.8  # 3 x 20 ms and 2 x 30 ms do not fit into 100 ms
    for policy in ("edf", "earliest_finish", "fcfs"):
        counts = simulate(wanted, plan, make_policy(policy), deterministic=True).run_counts
        kept = sum(IN_TIME.frames(name, counts)[0] for name in "ab")
        assert kept / 100 <= found + 0.02  # the end of the run may have one frame more


def test_frames_that_wait_for_one_another_are_bounded_by_the_time_there_is() -> None:
    """A long deadline lets few hyperperiods look easy; in the long run they are not."""
    wanted = load(arrivals={"a": {"poisson": 100.0}}, models=LATE)
    assert deadline_bound(wanted, Plan.of(machine({"a": {"p": 0.02}}))) == pytest.approx(0.5)
    slow = machine({"a": {"p": 0.02, "q": 2.0}})  # of no use within the deadline
    assert deadline_bound(wanted, Plan.of(slow)) == pytest.approx(0.5)


def test_rates_are_scaled_with_their_periods() -> None:
    plan = Plan.of(machine({"a": {"p": 0.06}}))
    assert [deadline_bound(load().scaled(factor), plan) for factor in (1.0, 2.0)] == [1.0, 0.0]


@pytest.mark.parametrize(
    "fields",
    [
        {"arrivals": {"a": {"closed": 1}}, "models": LATE},
        {"models": {"a": "zoo:lenet"}},
    ],
)
def test_without_deadlines_or_rates_there_is_none(fields: dict[str, object]) -> None:
    assert deadline_bound(load(**fields), Plan.of(machine({"a": {"p": 0.01}}))) is None


def test_a_frame_that_follows_is_in_time_only_after_the_one_before() -> None:
    spec = {"source": "zoo:lenet", "deadline": "period"}
    wanted = load(
        models={"next": spec, "a": spec},
        arrivals={"a": {"periodic": 10.0}, "next": {"after": "a"}},
    )
    for seconds, share in ((0.04, 1.0), (0.06, 0.5), (0.11, 0.0)):
        on = machine({"a": {"p": seconds, "q": seconds}, "next": {"p": seconds, "q": seconds}})
        assert deadline_bound(wanted, Plan.of(on)) == share
