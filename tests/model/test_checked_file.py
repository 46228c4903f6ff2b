"""Checked files: the same model without checking it again, and never an old one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from coinfer.errors import ModelError
from coinfer.model import checked_file, load_model
from coinfer.model import file as module
from coinfer.model.model import Model
from coinfer.testing.models import Example, examples, tiny_conv, tiny_linear

LONG_AGO_NS = 10**18


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COINFER_CACHE", str(tmp_path / "cache"))
    # A file that was just written is not remembered; in a test all are.
    monkeypatch.setattr(checked_file, "_SETTLED_NS", 0)
    return tmp_path / "cache" / "checked"


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were parsed."""
    found: list[str] = []
    parse = module._parse

    def noted(data: bytes, what: str) -> Any:
        found.append(what)
        return parse(data, what)

    monkeypatch.setattr(module, "_parse", noted)
    return found


def written(path: Path, model: Model) -> Path:
    path.write_bytes(model.to_bytes())
    return path


def alike(one: Model, two: Model) -> bool:
    fields = ("name", "inputs", "outputs", "source", "fixed", "weight_bytes", "metadata")
    return (
        all(getattr(one, field) == getattr(two, field) for field in fields)
        and one.summary == two.summary
        and one.to_bytes() == two.to_bytes()
        and one.fingerprint == two.fingerprint
        and (one.outline is None) == (two.outline is None)
        and one.content.file_state is not None
        and two.content.file_state is not None
        and one.content.file_state[:-1] == two.content.file_state[:-1]
    )


@pytest.mark.parametrize("example", examples(), ids=lambda e: e.model.name)
def test_a_model_is_the_same_the_second_time(
    example: Example, tmp_path: Path, parsed: list[str]
) -> None:
    path = written(tmp_path / "m.onnx", example.model)
    first, second = load_model(path), load_model(path)
    assert alike(first, second)
    is_plain = not (first.defaults or first.fixed or first.outline)
    assert len(parsed) == (1 if is_plain else 2)
    inputs = first.sample_inputs(seed=2)
    again = second.sample_inputs(seed=2)
    assert all(np.array_equal(inputs[name], again[name]) for name in inputs)
    assert first.check_inputs(inputs) == second.check_inputs(inputs)


def test_another_file_in_its_place_is_read(tmp_path: Path, parsed: list[str]) -> None:
    path = written(tmp_path / "m.onnx", tiny_conv().model)
    load_model(path)
    other = written(tmp_path / "other.onnx", tiny_linear().model)
    other.replace(path)
    assert load_model(path).fingerprint == tiny_linear().model.fingerprint
    assert len(parsed) == 2
    path.write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="not an ONNX file"):
        load_model(path)


def test_a_file_that_has_just_changed_is_not_remembered(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checked_file, "_SETTLED_NS", LONG_AGO_NS * 100)
    load_model(written(tmp_path / "m.onnx", tiny_conv().model))
    assert not folder.exists()


@pytest.mark.parametrize("damage", ["", "{}", "abc\n{}", "flip", "cut", "fifo", "zeros"])
def test_a_damaged_record_is_not_used(
    damage: str, tmp_path: Path, folder: Path, parsed: list[str]
) -> None:
    path = written(tmp_path / "m.onnx", tiny_conv().model)
    first = load_model(path)
    [record] = folder.iterdir()
    text = record.read_text()
    match damage:
        case "flip":
            record.write_text(text.replace("float32", "float64"))
        case "cut":
            record.write_text(text[: len(text) // 2])
        case "fifo":
            if not hasattr(os, "mkfifo"):
                pytest.skip("this system has no FIFOs")
            record.unlink()
            os.mkfifo(record)
        case "zeros":
            record.write_bytes(bytes(2**21))
        case _:
            record.write_text(damage)
    assert alike(first, load_model(path))
    assert len(parsed) == 2
    assert record.read_text() == text  # it was written again


def test_another_version_of_what_checks_it_checks_it_again(
    tmp_path: Path, parsed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "m.onnx", tiny_conv().model)
    load_model(path)
    monkeypatch.setattr(checked_file, "_onnx_version", lambda: "another")
    load_model(path)
    assert len(parsed) == 2
    assert onnx.__version__ != "another"


def test_a_file_that_breaks_the_rules_is_refused_each_time(tmp_path: Path, folder: Path) -> None:
    proto = onnx.ModelProto.FromString(tiny_conv().model.to_bytes())
    proto.graph.node[0].op_type = "NoSuchOperator"
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    for _ in range(2):
        with pytest.raises(ModelError, match="NoSuchOperator"):
            load_model(path)
    assert not folder.exists()


def test_without_a_cache_that_can_be_written_files_are_checked_each_time(
    tmp_path: Path, parsed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file")
    monkeypatch.setenv("COINFER_CACHE", str(blocked))
    path = written(tmp_path / "m.onnx", tiny_conv().model)
    assert load_model(path).weight_bytes == load_model(path).weight_bytes
    assert len(parsed) == 2
