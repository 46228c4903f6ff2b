"""The library: every scenario can be read, is what was published, and can be simulated."""

from __future__ import annotations

from pathlib import Path

import pytest

from coinfer import zoo
from coinfer.core.request import OnLate
from coinfer.errors import UnknownNameError
from coinfer.machine.machine import Machine
from coinfer.machine.machine_file import load_machine
from coinfer.plan import Plan
from coinfer.policies import make_policy
from coinfer.scenarios import library
from coinfer.sim import simulate
from coinfer.workload.load import Load
from coinfer.workload.scenario import Scenario
from coinfer.workload.scenario_file import load_scenario, parse_scenario
from sim.machines import machine

EXAMPLES = Path(__file__).parents[2] / "examples"
XRBENCH = {
    "social-interaction-a": {
        "eye_segmentation": 60,
        "gaze": 60,
        "depth_refinement": 30,
        "hand_tracking": 30,
    },
    "social-interaction-b": {"eye_segmentation": 60, "gaze": 60, "action_segmentation": 30},
    "outdoor-activity-a": {
        "keyword": 3,
        "speech": 0.6,
        "semantic_segmentation": 10,
        "object_detection": 30,
    },
    "outdoor-activity-b": {"keyword": 3, "speech": 0.6, "object_detection": 30},
    "ar-assistant": {
        "keyword": 3,
        "speech": 1.5,
        "semantic_segmentation": 10,
        "depth": 30,
        "plane_detection": 15,
        "object_detection": 10,
    },
    "ar-gaming": {"hand_tracking": 45, "depth": 30, "plane_detection": 15},
    "vr-gaming": {"eye_segmentation": 60, "gaze": 60, "hand_tracking": 45},
}


def load(name: str) -> Scenario:
    return load_scenario(f"lib:{name}")


def from_macs(scenario: Scenario, macs_per_s: float) -> Machine:
    """Two processors, one twice as fast, with times in proportion to the work."""
    table = {}
    for name, spec in scenario.models.items():
        seconds = zoo.spec(spec.source.removeprefix("zoo:")).macs * spec.batch / macs_per_s
        table[name] = {"p": seconds, "q": 2 * seconds}
    return machine(table)


@pytest.mark.parametrize("name", library.scenario_names())
def test_every_scenario_can_be_simulated(name: str) -> None:
    scenario = load(name)
    assert scenario.name == name
    assert scenario.description
    if scenario.offline is None:
        scenario = scenario.with_options(duration_s=2.0)
    policy = make_policy(scenario.policy.name, **scenario.policy.options)
    run_counts = simulate(scenario, Plan.of(from_macs(scenario, 2e12)), policy).run_counts
    assert sum(counts.completed for counts in run_counts.models.values()) > 5
    assert set(run_counts.models) == set(scenario.models)
    assert all(counts.unfinished == 0 for counts in run_counts.models.values())


@pytest.mark.parametrize(("name", "rates"), XRBENCH.items())
def test_xrbench_has_the_published_rates_and_deadlines(name: str, rates: dict[str, float]) -> None:
    scenario = load(f"xrbench-{name}")
    assert Load(scenario).offered_rates_per_s() == pytest.approx(rates)
    assert scenario.score == "xrbench"
    for model, spec in scenario.models.items():
        frames_per_s = 3 if model == "speech" else rates[model]
        assert spec.deadline_s == pytest.approx(1 / frames_per_s)
        assert spec.on_late is OnLate.DROP


def test_the_library_is_complete() -> None:
    wanted = {f"xrbench-{name}" for name in XRBENCH} | {f"disb-{letter}" for letter in "abcde"}
    wanted |= {"etri-equal-mix", "etri-equal-rates", "gpulet-game", "gpulet-traffic"}
    assert set(library.scenario_names()) == wanted | {"bursty-gamma"}


@pytest.mark.parametrize("letter", "de")
def test_disb_d_and_e_offer_twenty_of_each_beside_closed_loops(letter: str) -> None:
    scenario = load(f"disb-{letter}")
    rates = Load(scenario).open_rates_per_s()
    assert list(rates.values()) == [20.0] * 5
    assert len(scenario.models) == 10
    kind = "Periodic" if letter == "d" else "Poisson"
    assert [type(p).__name__ for p in scenario.processes.values()] == [kind] * 5 + ["Closed"] * 5


def test_the_machine_is_that_of_the_examples() -> None:
    shipped = library.machine_path("lib:tinker-edge-r")
    assert shipped.read_bytes() == (EXAMPLES / "machines" / "tinker-edge-r.yaml").read_bytes()
    assert library.machine_names() == (
        *("cores-16", "cores-64", "cores-8"),
        *("synthetic-edge", "tinker-edge-r"),
    )
    assert all(load_machine(f"lib:{name}").name == name for name in library.machine_names())


def test_the_synthetic_machine_knows_every_model_and_follows_its_rule() -> None:
    rule = {"cpu0": (1e-4, 1e11), "cpu1": (1e-4, 1e11), "gpu": (5e-4, 1e12), "npu": (1e-3, 4e12)}
    profile = load_machine("lib:synthetic-edge").profile
    for name in library.scenario_names():
        for model, spec in load(name).models.items():
            source = spec.source.removeprefix("zoo:")
            macs = zoo.spec(source).macs
            for processor, (fixed_s, macs_per_s) in rule.items():
                expected_s = profile.expected_s(model, processor)
                if "bert" in source and processor == "npu":
                    assert expected_s is None
                else:
                    assert expected_s == pytest.approx(fixed_s + macs / macs_per_s, rel=1e-3)


def test_a_scenario_may_name_a_machine_of_the_library() -> None:
    scenario = parse_scenario(
        "machine: lib:tinker-edge-r\nmodels: {ResNet50: {}}\narrivals: {ResNet50: {closed: 1}}\n",
        base=Path("/elsewhere"),
    )
    assert scenario.machine is not None
    assert load_machine(scenario.machine).models == ("MobileNetV2", "ResNet50", "ResNet101")


def test_an_unknown_name_is_met_with_the_nearest_one() -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean 'disb-a'\?.*scenarios list"):
        load("disb_a")
    with pytest.raises(UnknownNameError, match=r"unknown machine of the library 'tinker'"):
        load_machine("lib:tinker")


def test_any_other_path_is_left_alone() -> None:
    assert library.scenario_path("some/file.yaml") == Path("some/file.yaml")
