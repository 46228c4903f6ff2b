"""An ensemble in a scenario is its models' requests, one after the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from coinfer.core.request import OnLate
from coinfer.errors import ScenarioError
from coinfer.workload.load import Load
from coinfer.workload.scenario import Scenario
from coinfer.workload.scenario_file import parse_scenario

ENSEMBLE = """
ensemble: spots
inputs: {picture: {datatype: FP32, shape: [1, 1, 64, 64]}}
stages:
  - {name: detect, model: detector, inputs: {x: picture}}
  - {name: cut, call: "steps:cut", inputs: {x: picture, y: detect.y}, outputs: [crops]}
  - {name: classify, model: classifier, each: cut.crops, inputs: {x: cut.crops}}
  - {name: frame, model: framer, inputs: {x: picture, y: detect.y}}
outputs: {y: classify.y, frame: frame.y}
"""
MODELS = "{detector: zoo:tiny_cnn, classifier: zoo:lenet, framer: zoo:lenet, other: zoo:lenet}"
SCENARIO = f"""
models: {MODELS}
ensembles:
  spots: {{file: e.yaml, deadline: period, on_late: drop, priority: 2, items: {{classify: 3}}}}
arrivals:
  spots: {{periodic: 10/s}}
  other: {{poisson: 1/s}}
"""


def _parsed(folder: Path, scenario: str = SCENARIO, ensemble: str = ENSEMBLE) -> Scenario:
    (folder / "e.yaml").write_text(ensemble)
    return parse_scenario(scenario, base=folder, origin="s.yaml")


def test_models_come_after_one_another_with_the_promises_of_the_whole(tmp_path: Path) -> None:
    found = _parsed(tmp_path)
    by_hand = parse_scenario(
        f"""
        models: {MODELS}
        arrivals:
          detector: {{periodic: 10/s}}
          classifier: {{after: detector, count: 3}}
          framer: {{after: detector}}
          other: {{poisson: 1/s}}
        """
    )
    assert found.arrivals == by_hand.arrivals
    assert list(found.processes) == ["detector", "classifier", "framer", "other"]
    for name in ("detector", "classifier", "framer"):
        spec = found.models[name]
        assert (spec.deadline_s, spec.priority, spec.on_late) == (0.1, 2, OnLate.DROP)
    assert found.models["other"].deadline_s is None
    assert found.scaled(2).models["classifier"].deadline_s == 0.05


def test_the_load_and_so_the_bound_know_its_rates(tmp_path: Path) -> None:
    drawn = SCENARIO.replace("{classify: 3}", "{classify: {poisson: 2.5}}")
    rates = Load(_parsed(tmp_path, drawn)).offered_rates_per_s()
    assert rates == {"detector": 10, "classifier": 25, "framer": 10, "other": 1}


def test_a_file_alone_will_do(tmp_path: Path) -> None:
    ensemble = ENSEMBLE.replace("each: cut.crops, ", "")
    found = _parsed(
        tmp_path,
        SCENARIO.replace(
            "{file: e.yaml, deadline: period, on_late: drop, priority: 2, items: {classify: 3}}",
            "e.yaml",
        ),
        ensemble,
    )
    assert found.models["detector"].deadline_s is None
    assert Load(found).offered_rates_per_s() == {
        "detector": 10,
        "classifier": 10,
        "framer": 10,
        "other": 1,
    }


def test_a_stage_waits_for_the_last_of_a_chain(tmp_path: Path) -> None:
    """Though it reads what the first gives, too."""
    ensemble = ENSEMBLE.replace("each: cut.crops, ", "").replace(
        "{x: picture, y: detect.y}}\noutputs", "{x: classify.y, y: detect.y}}\noutputs"
    )
    found = _parsed(tmp_path, SCENARIO.replace(", items: {classify: 3}", ""), ensemble)
    assert [getattr(p, "model", None) for p in found.processes.values()] == [
        None,
        "detector",
        "classifier",
        None,
    ]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("file: e.yaml", "file: f.yaml", "s.yaml:4: ensembles.spots.file: "),
        ("items: {classify: 3}", "items: {}", "stage 'classify' has any number of items; say how"),
        ("{classify: 3}", "{classify: 3, cut: 3}", "unknown stage with `each` 'cut'"),
        ("{classify: 3}", "{classify: 0}", "ensembles.spots.items.classify"),
        ("deadline: period, ", "", "on_late: drop needs a deadline"),
        ("  spots: {periodic: 10/s}\n", "", "ensemble 'spots' gets no requests; give it arrivals"),
        ("other: {poisson", "framer: {poisson", "arrivals.framer: gets its requests from ensemble"),
        ("framer: zoo:lenet, ", "", "unknown model 'framer'"),
        ("other: zoo:lenet", "spots: zoo:lenet", "is the name of a model, too; change it"),
        (
            "framer: zoo:lenet",
            "framer: {source: zoo:lenet, priority: 1}",
            "s.yaml:2: models.framer.priority: is that of ensemble 'spots'; state it there",
        ),
        (
            "arrivals:\n  spots: {periodic: 10/s}\n  other: {poisson: 1/s}",
            "arrivals: {mix: {in_flight: 2}}",
            "ensembles.spots: needs arrivals of its own",
        ),
        (
            "\narrivals:",
            "\n  two: e.yaml\narrivals:\n  two: {poisson: 1/s}",
            "is asked by ensemble",
        ),
    ],
)
def test_what_does_not_fit_is_explained(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in SCENARIO
    with pytest.raises(ScenarioError) as found:
        _parsed(tmp_path, SCENARIO.replace(old, new))
    assert said in str(found.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("model: framer", "model: detector", "model 'detector' is asked by two stages"),
        (
            "{x: picture, y: detect.y}}\noutputs",
            "{x: classify.y, y: detect.y}}\noutputs",
            "stage 'frame' waits for all items of 'classify', which a scenario cannot say",
        ),
        (
            "{x: picture, y: detect.y}}\noutputs",
            "{x: picture}}\noutputs",
            "stage 'frame' is not the only one that waits for no model",
        ),
        (
            "outputs: {y: classify.y, frame: frame.y}",
            "  - {name: last, model: other, inputs: {x: classify.y, y: frame.y}}\n"
            "outputs: {y: last.y}",
            "stage 'last' waits for both 'classify' and 'frame'",
        ),
        (
            "{name: detect, model: detector,",
            "{name: detect, model: detector, each: picture,",
            "stage 'detect' has items before any model was asked",
        ),
    ],
)
def test_what_no_scenario_can_say_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in ENSEMBLE
    scenario = SCENARIO.replace("{classify: 3}", "{classify: 3, detect: 2}")
    with pytest.raises(ScenarioError) as found:
        _parsed(tmp_path, scenario, ENSEMBLE.replace(old, new))
    assert said in str(found.value)
    assert "e.yaml" in str(found.value)
