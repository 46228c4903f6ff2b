"""A fused variant starts as cold as its members do together."""

from __future__ import annotations

import dataclasses

import pytest

from coinfer.machine.cold import Cold
from coinfer.plan.plan import Plan
from coinfer.sim.fused_cold import fused_cold
from sim.test_fused import plan


def cold(found: dict[tuple[str, str], Cold]) -> Plan:
    """The plan of four models, 1 s each, that take 2 s together."""
    made = plan(fused_s=2.0)
    return dataclasses.replace(made, machine=dataclasses.replace(made.machine, cold=found))


def test_what_its_members_lose_adds_up_after_another_model_and_not_after_a_rest() -> None:
    # a loses 0.25 s and 0.5 s, b 0.75 s and 0.25 s; nobody knows of c and d.
    made = cold({("a", "p"): Cold(1.25, 1.5), ("b", "p"): Cold(1.75, 1.25)})
    [(key, found)] = fused_cold(made, made.machine.equipped()).items()
    assert key == ("all", "p")
    assert found.after_other == pytest.approx(1 + 4 * 0.5 / 2.0)
    assert found.after_idle == pytest.approx(1 + 0.5 / 2.0)


def test_nothing_is_made_up_where_nothing_was_measured() -> None:
    made = cold({})
    assert fused_cold(made, made.machine.equipped()) == {}


def test_what_was_measured_counts() -> None:
    made = cold({("a", "p"): Cold(1.25, 1.5), ("all", "p"): Cold(1.1, 1.0)})
    assert fused_cold(made, made.machine.equipped()) == {}
