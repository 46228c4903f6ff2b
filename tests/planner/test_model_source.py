from __future__ import annotations

from pathlib import Path

import pytest

from coinfer.errors import ModelError, UnknownNameError
from coinfer.model import load_model
from coinfer.planner.model_source import resolve_model


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mlp.onnx"
    path.write_bytes(resolve_model("zoo:tiny_mlp").to_bytes())
    return path


def test_a_zoo_name_builds_the_network() -> None:
    model = resolve_model("zoo:tiny_mlp")
    assert model.name == "tiny_mlp"
    assert model.source is None


def test_the_seed_in_the_source_wins_over_the_argument() -> None:
    third = resolve_model("zoo:tiny_mlp?seed=3").fingerprint
    assert third == resolve_model("zoo:tiny_mlp", seed=3).fingerprint
    assert third == resolve_model("zoo:tiny_mlp?seed=3", seed=4).fingerprint
    assert third != resolve_model("zoo:tiny_mlp").fingerprint


def test_a_path_loads_the_file(file: Path) -> None:
    assert resolve_model(str(file)).fingerprint == load_model(file).fingerprint


def test_relative_paths_start_at_the_base(file: Path) -> None:
    assert resolve_model(file.name, base=file.parent).source == file
    assert resolve_model(str(file), base=Path("elsewhere")).source == file


@pytest.mark.parametrize("source", ["zoo:tiny_mlp", "file"])
def test_the_name_can_be_given(source: str, file: Path) -> None:
    assert resolve_model(str(file) if source == "file" else source, name="a").name == "a"


@pytest.mark.parametrize("source", ["zoo:", "zoo:lenet?seed=x", "zoo:lenet?sed=1", "zoo:lenet?"])
def test_malformed_zoo_sources_are_refused(source: str) -> None:
    with pytest.raises(ModelError, match="write zoo:NAME or"):
        resolve_model(source)


def test_an_empty_source_is_refused() -> None:
    with pytest.raises(ModelError, match="no model is named"):
        resolve_model("")


def test_an_unknown_network_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="resnet50"):
        resolve_model("zoo:resnet5")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        resolve_model("no.onnx", base=tmp_path)
