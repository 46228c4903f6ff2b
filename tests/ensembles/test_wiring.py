"""What does not fit is said before any request: the file, the stage, the field, the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from coinfer.ensembles import Ensemble, Signature, load_ensemble, parse_ensemble
from coinfer.errors import CoinferError, ConfigurationError, ScenarioError, UnknownNameError
from ensembles.pipelines import FACES, MODELS, EngineByHand, described


def _changed(old: str, new: str) -> str:
    assert old in FACES
    return FACES.replace(old, new)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("ensemble: faces", "", "faces.yaml:3: ensemble: is missing; add it"),
        ("model: detector", "modle: detector", "did you mean 'model'?"),
        ("FP32, shape: [1, 1, 64", "F32, shape: [1, 1, 64", "unknown datatype 'F32'; it is one of"),
        ("[1, 1, 64, 64]", "[1, 1, 64, 6.5]", "expected a size from 1, a symbol such as N, or -1"),
        ("model: detector, ", "", "stage 'find' has neither `model` nor `call`; give one of them"),
        ("model: detector,", 'model: detector, call: "a:b",', "has both `model` and `call`"),
        ("model: detector,", "model: detector, outputs: [heat],", "remove `outputs`"),
        ('"steps:cut"', '"os.path:join"', "expected MODULE:FUNCTION, such as steps:crop"),
        ("each: cut.crops,", "each: cut.boxes,", "no input takes the items of `each`"),
        (
            "heat: find.heat}\n",
            "heat: fnd.heat}\n",
            "faces.yaml:8: stages[1].inputs.heat: stage 'cut': unknown stage 'fnd'; did you mean",
        ),
        ("heat: find.heat}\n", "heat: name.scores}\n", "stage 'name' does not stand before it;"),
        ("heat: find.heat}\n", "heat: find}\n", "name an output of stage 'find', e.g. `find.NAME`"),
        ("{image: image, heat", "{image: picture, heat", "unknown input 'picture'; known: image"),
        ("name: name,", "name: find,", "stage 'find' is there twice"),
        ("crop: cut.crops}", "crop: cut.boxes}", "no input takes the items"),
        (
            "scores: name.scores, ",
            "",
            "nothing reads an output of stage 'name'; use one, or remove",
        ),
        (
            "outputs: {scores: name.scores,",
            "outputs: {crops: cut.crop, scores: name.scores,",
            "outputs.crops: unknown output of stage 'cut' 'crop'; did you mean 'crops'?",
        ),
    ],
)
def test_a_wrong_file_is_explained(old: str, new: str, said: str) -> None:
    with pytest.raises(ScenarioError) as found:
        parse_ensemble(_changed(old, new), origin="faces.yaml")
    assert said in str(found.value)
    assert str(found.value).startswith("faces.yaml")


def test_what_goes_out_of_a_function_must_be_described() -> None:
    text = _changed(
        "outputs: {crops: {datatype: FP32, shape: [COUNT, 1, 8, 8]}}", "outputs: [crops]"
    )
    text = text.replace("outputs: {scores", "outputs: {crops: cut.crops, scores")
    with pytest.raises(ScenarioError, match=r"outputs.crops: cut.crops goes out .* so say what it"):
        parse_ensemble(text)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="no such ensemble file; check the path"):
        load_ensemble(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("old", "new", "kind", "said"),
    [
        ("model: detector", "model: detectr", UnknownNameError, "Did you mean 'detector'?"),
        (
            "inputs: {image: image}}",
            "inputs: {x: image}}",
            ConfigurationError,
            "needs the input 'im",
        ),
        (
            "{image: image}}\n  - name: cut",
            "{image: image, x: image}}\n  - name: cut",
            UnknownNameError,
            "unknown input of model 'detector' 'x'",
        ),
        (
            "inputs: {image: image, heat: find.heat}",
            "inputs: {image: image}",
            ConfigurationError,
            "is called with image, but takes (image, heat)",
        ),
        ("name.scores", "name.score", UnknownNameError, "unknown output of stage 'name' 'score'"),
        (
            "[COUNT, 1, 8, 8]",
            "[COUNT, 1, 8, 9]",
            ConfigurationError,
            "input 'crop' takes float32[N,1,8,8], but cut.crops is float32[1,1,8,9]; put a step",
        ),
        (
            "datatype: FP32, shape: [COUNT",
            "datatype: UINT8, shape: [COUNT",
            ConfigurationError,
            "is uint8[",
        ),
        ("[COUNT, 1, 8, 8]", "[]", ConfigurationError, "cut.crops has no axis, so it has no items"),
        (
            "steps:cut",
            "steps:cutt",
            ConfigurationError,
            "steps.py has no function 'cutt'; it has cut",
        ),
        ("steps:cut", "step:cut", ConfigurationError, "there is no step.py in"),
    ],
)
def test_what_does_not_fit_to_the_models_is_explained(
    tmp_path: Path, old: str, new: str, kind: type[CoinferError], said: str
) -> None:
    description = described(tmp_path, _changed(old, new))
    with pytest.raises(kind) as found:
        Ensemble(description, EngineByHand(), MODELS)
    assert said in str(found.value)
    assert "faces.yaml" in str(found.value)


def test_an_item_is_no_batch_of_a_model_that_has_none(tmp_path: Path) -> None:
    model = MODELS["classifier"]
    signature = Signature(inputs=model.inputs, outputs=model.outputs, has_batch=False)
    with pytest.raises(ConfigurationError, match=r"'name': .* but cut.crops is float32\[1,8,8\]"):
        Ensemble(described(tmp_path), EngineByHand(), {**MODELS, "classifier": signature})


def test_a_module_that_cannot_be_imported_is_named(tmp_path: Path) -> None:
    description = described(tmp_path, steps="import nothing_of_this_name")
    with pytest.raises(
        ConfigurationError, match=r"stage 'cut': .*steps.py cannot be imported: Mod"
    ):
        Ensemble(description, EngineByHand(), MODELS)


def test_a_module_is_taken_from_beside_the_file_only(tmp_path: Path) -> None:
    """Also if Python knows one of that name."""
    text = _changed("steps:cut", "json:dumps").replace("image: image, heat: ", "obj: ")
    with pytest.raises(ConfigurationError, match=r"there is no json.py in"):
        Ensemble(described(tmp_path, text), EngineByHand(), MODELS)
