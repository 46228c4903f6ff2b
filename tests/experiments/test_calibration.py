"""Calibration: a machine that was measured wrongly is corrected by what a run on it shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import SimpleNamespace

import pytest

from coinfer.experiments import calibration
from coinfer.experiments.calibration import Calibrated, calibrate, calibration_load, fitted
from coinfer.machine.cold import Cold
from coinfer.machine.machine import Machine
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.plan import Plan
from coinfer.policies import make_policy
from coinfer.runtime.prepared import Prepared
from coinfer.sim import Simulated, simulate
from coinfer.workload.request_shapes import request_shapes
from coinfer.workload.scenario import Scenario

ONE = Processor(name="one", backend="null", units=frozenset({"core0"}))
TWO = Processor(name="two", backend="null", units=frozenset({"core1"}))
TABLE = {"small": {"one": 0.004, "two": 0.006}, "large": {"one": 0.030, "two": 0.020}}
FACTORS = {
    ("small", "one"): 1.5,
    ("small", "two"): 0.9,
    ("large", "one"): 1.1,
    ("large", "two"): 1.3,
}
MEASURED = Machine(processors=(ONE, TWO), profile=Profile.from_seconds(TABLE))
TRUE = dataclasses.replace(
    MEASURED,
    profile=Profile.from_seconds(
        {
            model: {name: s * FACTORS[model, name] for name, s in row.items()}
            for model, row in TABLE.items()
        }
    ),
    cold={("large", "one"): Cold(after_idle=1.25)},
    overhead_s=0.0003,
)


@pytest.fixture(scope="module")
def load() -> Scenario:
    """Both models with Poisson arrivals below the bound, for half a minute."""
    spec = {"source": "zoo:lenet"}
    scenario = Scenario.model_validate(
        {
            "models": {"small": spec, "large": spec},
            "arrivals": {"small": {"closed": 1}, "large": {"closed": 1}},
            "duration": 5,
        }
    )
    return calibration_load(scenario, MEASURED, 30.0)


@pytest.fixture(scope="module")
def run(load: Scenario) -> Simulated:
    """The load on the machine as it really is."""
    return simulate(load, Plan.of(TRUE), make_policy("earliest_finish"), keep_records=True)


def test_the_load_is_below_the_bound(load: Scenario) -> None:
    done = simulate(load, Plan.of(MEASURED), make_policy("earliest_finish"))
    busy = [each.busy_s for each in done.run_counts.processors.values()]
    assert 0.5 * 30 < max(busy) < 0.9 * 30
    assert load.duration_s == 30.0


def test_times_of_a_run_are_found_again(load: Scenario, run: Simulated) -> None:
    found = fitted(Plan.of(MEASURED), load, run.recorder.executions())
    machine, factors, warnings = found
    assert factors.keys() == FACTORS.keys()
    assert not warnings
    for (model, name), factor in FACTORS.items():
        assert factors[model, name] == pytest.approx(factor, rel=0.02)
        assert machine.profile.expected_s(model, name) == pytest.approx(
            TRUE.profile.expected_s(model, name), rel=0.02
        )
    assert str(found) == "calibrated: executions take 0.90 to 1.50 of their measured times"
    assert machine.overhead_s == pytest.approx(TRUE.overhead_s)
    assert machine.cold["large", "one"].after_idle == pytest.approx(1.25, rel=0.1)


def test_what_ran_too_seldom_takes_the_factor_of_its_processor(
    load: Scenario, run: Simulated
) -> None:
    few: list[object] = []
    kept = [
        each
        for each in run.recorder.executions()
        if (each.model, each.processor) != ("small", "one") or (few.append(each) or len(few) < 4)
    ]
    factors = fitted(Plan.of(MEASURED), load, kept).factors
    assert factors["small", "one"] != pytest.approx(1.5, rel=0.05)
    assert 1.0 < factors["small", "one"] < 1.5


def played(
    monkeypatch: pytest.MonkeyPatch, load: Scenario, run: Simulated, *, interrupted: bool
) -> Calibrated:
    """Calibrate with a run that is given."""
    told = ("processor 'two' was set aside once: it hung; it was tried again",)
    done = SimpleNamespace(recorder=run.recorder, interrupted=interrupted, warnings=told)
    monkeypatch.setattr(calibration, "play", lambda *_, **__: done)
    return calibrate(Prepared(scenario=load, plan=Plan.of(MEASURED)), seconds=30.0)


def test_what_went_wrong_in_the_run_is_told(
    monkeypatch: pytest.MonkeyPatch, load: Scenario, run: Simulated
) -> None:
    found = played(monkeypatch, load, run, interrupted=False)
    assert found.factors.keys() == FACTORS.keys()
    assert "set aside" in found.warnings[0]


def test_who_interrupts_the_run_gets_no_simulation(
    monkeypatch: pytest.MonkeyPatch, load: Scenario, run: Simulated
) -> None:
    with pytest.raises(KeyboardInterrupt):
        played(monkeypatch, load, run, interrupted=True)


def test_a_run_without_executions_corrects_nothing(load: Scenario) -> None:
    found = fitted(Plan.of(MEASURED), load, [])
    assert found.machine is MEASURED
    assert "saw too few executions" in str(found)


def test_the_first_execution_of_each_pair_does_not_count(load: Scenario, run: Simulated) -> None:
    records = sorted(run.recorder.executions(), key=lambda record: record.started_s)
    first: dict[tuple[str, str], int] = {}
    for record in records:
        first.setdefault((record.model, record.processor), record.id)
    slow = [
        dataclasses.replace(record, service_s=5.0) if record.id in first.values() else record
        for record in records
    ]
    assert len(first) == len(FACTORS)
    usual, found = (fitted(Plan.of(MEASURED), load, each) for each in (records, slow))
    assert found.factors == usual.factors


def test_only_executions_of_like_sizes_are_compared() -> None:
    scenario = Scenario.model_validate(
        {
            "models": {"net": {"source": "net.onnx", "dims": {"width": [32, 320]}}},
            "arrivals": {"net": {"poisson": 60}},
            "duration": 30,
        }
    )
    wide = request_shapes(scenario)["net"][-1]
    factors = {"one": 1.6, "two": 0.8}

    def machine(factor: Mapping[str, float]) -> Machine:
        entries = {
            ProfileKey("net", name, shape=shape): Measurement(seconds=(seconds * factor[name],))
            for name, each in {"one": (0.004, 0.020), "two": (0.005, 0.040)}.items()
            for shape, seconds in zip((0, wide), each, strict=True)
        }
        return Machine(processors=(ONE, TWO), profile=Profile(entries))

    measured, true = (machine(each) for each in ({"one": 1.0, "two": 1.0}, factors))
    policy = make_policy("earliest_finish")
    run = simulate(scenario, Plan.of(true), policy, keep_records=True)
    found = fitted(Plan.of(measured), scenario, run.recorder.executions())
    for name, factor in factors.items():
        assert found.factors["net", name] == pytest.approx(factor, rel=0.001)
