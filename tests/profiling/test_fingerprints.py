"""A fingerprint is computed once per file, and again as soon as the file may have changed."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import onnx
import pytest

from coinfer.model import Model, load_model
from coinfer.profiling import ProfileCache
from coinfer.profiling.fingerprints import fingerprint_of
from coinfer.testing.models import tiny_conv, tiny_linear

LONG_AGO = 1_600_000_000


def written(path: Path, model: Model, changed_s: float = LONG_AGO) -> Model:
    onnx.save(onnx.load_from_string(model.to_bytes()), path)
    os.utime(path, (changed_s, changed_s))
    return load_model(path)


@pytest.fixture
def cache(tmp_path: Path) -> ProfileCache:
    return ProfileCache(tmp_path / "cache" / "profiles")


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take files for unchanged at once: no program can say that one was changed long ago."""
    monkeypatch.setattr("coinfer.profiling.fingerprints._SETTLED_NS", -1)


def forbid_computing(monkeypatch: pytest.MonkeyPatch) -> None:
    def computed(*_: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr("coinfer.model.canonical.fingerprint_of", computed)


@pytest.mark.usefixtures("settled")
def test_what_is_known_is_not_computed_again(
    tmp_path: Path, cache: ProfileCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = written(tmp_path / "m.onnx", tiny_linear().model)
    known = fingerprint_of(model, cache)
    assert known == tiny_linear().model.fingerprint
    forbid_computing(monkeypatch)
    assert fingerprint_of(load_model(tmp_path / "m.onnx"), cache) == known


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("changed_s", [LONG_AGO, LONG_AGO + 1])
def test_a_changed_file_is_computed_again(
    tmp_path: Path, cache: ProfileCache, changed_s: float
) -> None:
    fingerprint_of(written(tmp_path / "m.onnx", tiny_linear().model), cache)
    other = written(tmp_path / "m.onnx", tiny_conv().model, changed_s)
    assert fingerprint_of(other, cache) == tiny_conv().model.fingerprint


def of_same_size(folder: Path) -> tuple[Path, Path]:
    """Two models in files of the same size and the same time of writing."""
    paths = folder / "one.onnx", folder / "two.onnx"
    for path, factor in zip(paths, (1.0, 2.0), strict=True):
        proto = onnx.load_from_string(tiny_linear().model.to_bytes())
        for weight in proto.graph.initializer:
            values = onnx.numpy_helper.to_array(weight) * factor
            weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        onnx.save(proto, path)
        os.utime(path, (LONG_AGO, LONG_AGO))
    assert paths[0].stat().st_size == paths[1].stat().st_size
    time.sleep(0.02)  # coarser than the clock of files
    return paths


@pytest.mark.usefixtures("settled")
def test_a_file_that_was_overwritten_and_dated_back_is_computed_again(
    tmp_path: Path, cache: ProfileCache
) -> None:
    one, two = of_same_size(tmp_path)
    old, new = load_model(one).fingerprint, load_model(two).fingerprint
    assert fingerprint_of(load_model(one), cache) == old != new
    shutil.copyfile(two, one)
    shutil.copystat(two, one)
    assert fingerprint_of(load_model(one), cache) == new


@pytest.mark.usefixtures("settled")
def test_what_is_kept_is_of_the_file_as_it_was_loaded(tmp_path: Path, cache: ProfileCache) -> None:
    one, two = of_same_size(tmp_path)
    loaded, new = load_model(one), load_model(two).fingerprint
    old = load_model(one).fingerprint
    two.rename(one)
    assert fingerprint_of(loaded, cache) == old
    assert fingerprint_of(load_model(one), cache) == new


@pytest.mark.usefixtures("settled")
def test_another_algorithm_computes_again(
    tmp_path: Path, cache: ProfileCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = written(tmp_path / "m.onnx", tiny_linear().model)
    fingerprint_of(model, cache)
    monkeypatch.setattr("coinfer.profiling.fingerprints.ALGORITHM", -1)
    fingerprint_of(load_model(tmp_path / "m.onnx"), cache)
    assert len(list((tmp_path / "cache" / "fingerprints").iterdir())) == 2


def test_a_file_that_was_just_dated_back_is_not_kept(tmp_path: Path, cache: ProfileCache) -> None:
    fingerprint_of(written(tmp_path / "m.onnx", tiny_linear().model), cache)
    assert not (tmp_path / "cache" / "fingerprints").exists()


def test_a_file_that_was_just_written_is_not_kept(tmp_path: Path, cache: ProfileCache) -> None:
    onnx.save(onnx.load_from_string(tiny_linear().model.to_bytes()), tmp_path / "m.onnx")
    fingerprint_of(load_model(tmp_path / "m.onnx"), cache)
    assert not (tmp_path / "cache" / "fingerprints").exists()


@pytest.mark.usefixtures("settled")
def test_a_damaged_entry_is_computed_again(tmp_path: Path, cache: ProfileCache) -> None:
    model = written(tmp_path / "m.onnx", tiny_linear().model)
    known = fingerprint_of(model, cache)
    [entry] = (tmp_path / "cache" / "fingerprints").iterdir()
    entry.write_text('{"structure": 1')
    assert fingerprint_of(load_model(tmp_path / "m.onnx"), cache) == known
    assert entry.read_text().startswith("[")


def test_without_a_cache_it_is_computed(tmp_path: Path) -> None:
    model = written(tmp_path / "m.onnx", tiny_linear().model)
    assert fingerprint_of(model, None) == tiny_linear().model.fingerprint
