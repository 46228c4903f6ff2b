"""A GPU with streams is simulated like any other machine: what runs together takes longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from coinfer.machine.machine_file import load_machine
from coinfer.policies.fixed import Fixed
from sim.machines import play, scenario

FILE = Path(__file__).resolve().parents[2] / "examples" / "machines" / "gpu-streams.yaml"


def answers_s(assignment: dict[str, str]) -> list[float]:
    """When each request is answered if each network has its processor and all come at once."""
    wanted = scenario({"offline": {"counts": dict.fromkeys(assignment, 1), "order": "grouped"}})
    return sorted(play(load_machine(FILE), wanted, Fixed(assignment=assignment)).latencies())


def test_streams_run_together_and_slow_each_other_down() -> None:
    # resnet50: 3 ms at 1/1.6 of the speed. resnet101 has done 3 of its 6 ms by then.
    found = answers_s({"resnet50": "gpu0_s1", "resnet101": "gpu0_s2"})
    assert found == pytest.approx([0.0048, 0.0078])


def test_the_whole_gpu_excludes_its_streams() -> None:
    found = answers_s({"resnet50": "gpu0_s1", "resnet101": "gpu0"})
    assert found == pytest.approx([0.003, 0.009])


def test_the_cores_are_not_slowed_down() -> None:
    found = answers_s({"resnet50": "gpu0", "mobilenet_v2": "cpu0"})
    assert found == pytest.approx([0.003, 0.0031])
