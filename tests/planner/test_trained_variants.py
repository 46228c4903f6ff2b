"""Variants that planning makes of a network that was really trained, by really measuring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coinfer.plan.plan import Plan
from coinfer.plan.variant import Kind
from coinfer.planner.prepare import prepare
from coinfer.profiling import Effort, Profiler, default_cache
from coinfer.sim.simulate import simulate
from coinfer.workload.scenario import Scenario

pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("onnxscript", reason="exporting needs onnxscript")
pytest.importorskip("sklearn", reason="the digits ship with scikit-learn")
pytest.importorskip("tensorly", reason="decomposing needs tensorly")

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that tells digits apart, wider than it need be, and pictures of digits."""
    import torch

    from coinfer.retraining import Recipe, accuracy, exported, train
    from retraining.digits import batches, digits

    nn = torch.nn
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Conv2d(1, 64, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 128, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(128, 128, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(128, 10),
        )
    recipe = Recipe(epochs=6, learning_rate=3e-3)
    train(module, None, batches(0, 1000, shuffle=True), batches(1000, 1300), recipe=recipe)
    assert accuracy(module, batches(1300, 1797)) > 0.95
    path = tmp_path_factory.mktemp("digits")
    images, _ = digits()
    model = exported(module, images[:2], name="digits", inputs=["image"], outputs=["scores"])
    (path / "digits.onnx").write_bytes(model.to_bytes())
    np.savez(path / "samples.npz", image=images[:90, None].numpy())
    return path


def planned(folder: Path, max_error: float) -> tuple[Scenario, Plan]:
    model: dict[str, Any] = {
        "source": str(folder / "digits.onnx"),
        "inputs": {"npz": str(folder / "samples.npz")},
        "deadline": "1ms",
        "batch": "off",
        "variants": {"max_error": max_error, "compressed": "auto"},
    }
    scenario = Scenario.model_validate(
        {
            "models": {"digits": model},
            "arrivals": {"digits": {"poisson": 2000}},
            "duration": "1s",
            "warmup": "0s",
            "policy": "edf",
            "processors": [{"name": "cpu0", "backend": "onnxruntime", "units": ["core0"]}],
        }
    )
    profiler = Profiler(cache=default_cache(), effort=Effort(max_runs=20))
    return scenario, prepare(scenario, profiler, surroundings=True).plan


def test_a_faster_one_within_the_error_is_found_and_serves_who_would_be_late(folder: Path) -> None:
    scenario, plan = planned(folder, 0.25)
    variant = plan.models["digits"].variants[Kind.COMPRESSED]
    assert 0 < variant.error <= 0.25
    times = plan.profile
    assert times.expected_s("digits@compressed", "cpu0") < times.expected_s("digits", "cpu0")
    (choice,) = [
        each for each in plan.models["digits"].choices if each.by.startswith("compress of")
    ]
    assert "x as fast on cpu0" in choice.what
    loaded_s = times.expected_s("digits", "cpu0")
    busy = scenario.with_options(rate_factor=1.3 / loaded_s / 2000)
    counts = simulate(busy, plan).run_counts.models["digits"]
    assert counts.variants["digits@compressed"] > 0


def test_where_nothing_is_within_the_error_the_plan_says_so(folder: Path) -> None:
    _, plan = planned(folder, 1e-6)
    model = plan.models["digits"]
    assert list(model.variants) == [Kind.ORIGINAL]
    (choice,) = [each for each in model.choices if each.by == "compress"]
    (lost,) = choice.alternatives
    assert lost.name == "compressed"
    assert "--max-error 1e-06 cannot be kept" in lost.why
    assert any("digits has no compressed variant" in warning for warning in plan.warnings)
