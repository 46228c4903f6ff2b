"""Another policy may decide while an engine works: nothing is lost, its order holds at once."""

from __future__ import annotations

from typing import Any

import pytest

from coinfer.api import Engine
from coinfer.backends.null import Faults
from coinfer.errors import ClosedError, ConfigurationError, UnknownNameError
from coinfer.plan import PolicyChoice
from coinfer.policies import make_policy, policy_names
from runtime.engines import FEED, null_engine


def order_of_answers(engine: Engine, faults: Faults, change: Any) -> list[int]:
    """Let requests of rising priority wait behind one that hangs; return how they are answered."""
    answered: list[int] = []
    futures = [engine.submit("m", FEED)]  # it hangs
    assert faults.wait_until_hanging()
    for priority in range(1, 6):
        future = engine.submit("m", FEED, priority=priority)
        future.add_done_callback(lambda _, mine=priority: answered.append(mine))
        futures.append(future)
    change()
    faults.release()
    for future in futures:
        future.result(10)
    return answered


def hanging() -> tuple[Engine, Faults]:
    faults = Faults()
    faults.hang()
    return null_engine(faults=faults, policy="fcfs", batch="off"), faults


def test_what_waits_is_served_in_the_order_of_the_new_policy() -> None:
    engine, faults = hanging()
    with engine:
        assert order_of_answers(engine, faults, lambda: None) == [1, 2, 3, 4, 5]
    engine, faults = hanging()
    with engine:
        answered = order_of_answers(engine, faults, lambda: engine.change_policy("priority"))
        assert answered == [5, 4, 3, 2, 1]
        assert engine.plan.policy == PolicyChoice(name="priority")


@pytest.mark.parametrize("name", policy_names())
def test_nothing_is_lost_from_and_to_any_policy(name: str) -> None:
    with null_engine("p0", "p1", policy="fcfs") as engine:
        futures = [engine.submit("m", FEED) for _ in range(20)]
        options = {"assignment": {"m": "p1"}} if name == "fixed" else {}
        engine.change_policy(name, **options)
        futures += [engine.submit("m", FEED) for _ in range(20)]
        engine.change_policy(make_policy("fcfs"))
        futures += [engine.submit("m", FEED) for _ in range(20)]
        assert all("y" in future.result(10) for future in futures)
        assert engine.fault is None


def test_what_is_no_policy_is_refused_and_the_old_one_stays() -> None:
    with null_engine(policy="fcfs") as engine:
        with pytest.raises(UnknownNameError, match="fcsf"):
            engine.change_policy("fcsf")
        with pytest.raises(UnknownNameError, match="speed"):
            engine.change_policy("edf", speed=3)
        with pytest.raises(ConfigurationError, match="policy that is named"):
            engine.change_policy(make_policy("edf"), speed=3)
        with pytest.raises(ConfigurationError, match="does not inherit"):
            engine.change_policy(object())  # type: ignore[arg-type]
        assert engine.plan.policy.name == "fcfs"
        assert "y" in engine.infer("m", FEED)
    with pytest.raises(ClosedError):
        engine.change_policy("edf")


def test_a_callback_may_not_wait_for_a_model_that_is_being_loaded() -> None:
    found: list[BaseException] = []

    def change(_future: object) -> None:
        try:
            engine.change_policy("edf")
        except ConfigurationError as error:
            found.append(error)

    faults = Faults()
    faults.hang()
    with null_engine(faults=faults, policy="fcfs") as engine:
        future = engine.submit("m", FEED)
        assert faults.wait_until_hanging()
        future.add_done_callback(change)
        faults.release()
        future.result(10)
        engine.drain(10)
    assert "change_policy() in a callback" in str(found[0])
    assert engine.plan.policy.name == "fcfs"
