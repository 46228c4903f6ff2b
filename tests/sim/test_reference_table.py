"""The published table of three networks on four processors, in equal mix."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from coinfer.experiments.certificate import certify
from coinfer.machine.machine_file import load_machine
from coinfer.plan import Plan
from coinfer.policies import make_policy
from coinfer.sim import simulate
from coinfer.workload.scenario_file import load_scenario

EXAMPLES = Path(__file__).parents[2] / "examples"
SCENARIO = load_scenario(EXAMPLES / "etri-equal-mix.yaml")
BOARD = load_machine(EXAMPLES / "machines" / "tinker-edge-r.yaml")
STUDY = {
    "CPU": {"MobileNetV2": 1, "ResNet50": 3, "ResNet101": 2},
    "NCS2": {"ResNet101": 1},
    "TPU": {"MobileNetV2": 1, "ResNet50": 3, "ResNet101": 2},
    "NPU": {"MobileNetV2": 2, "ResNet50": 1, "ResNet101": 3},
}


def throughput_per_s(policy: str, **options: Any) -> float:
    done = simulate(SCENARIO, Plan.of(BOARD), make_policy(policy, **options))
    served = sum(counts.served for counts in done.run_counts.models.values())
    assert served == 15_000
    return served / done.run_counts.duration_s


def test_the_bound_with_and_without_changing_the_one_model() -> None:
    found = certify(SCENARIO, BOARD)
    assert found.bound.throughput_per_s == pytest.approx(101.057, abs=0.001)
    assert found.kept is not None
    assert found.kept.throughput_per_s == pytest.approx(100.756, abs=0.001)
    assert found.kept.shares["NCS2"] == pytest.approx({"ResNet50": 1.0})


# The figures hold for endless queues; with 5,000 of each the last job on the slow CPU costs up to
# 1.2 s of 165 to 179 s.
@pytest.mark.parametrize(
    ("policy", "options", "per_s"),
    [
        ("fcfs", {}, 84.234),
        ("sjf", {}, 90.928),
        ("priority", {"table": STUDY, "ageing_s": math.inf}, 91.73),
    ],
)
def test_published_policies_reach_the_derived_throughput(
    policy: str, options: dict[str, Any], per_s: float
) -> None:
    assert throughput_per_s(policy, **options) == pytest.approx(per_s, rel=0.01)


def test_one_model_per_processor_reaches_its_derived_throughput() -> None:
    # Exact but for the first request: nothing is random and no slow processor comes last.
    assert throughput_per_s("affinity") == pytest.approx(59.12, rel=0.001)


def test_the_default_policy_beats_the_published_ones_and_not_the_bound() -> None:
    assert 91.73 < throughput_per_s("earliest_finish") <= 101.058
