"""What goes wrong with files and libraries while a budget holds: nothing is lost, one warning."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from coinfer import Engine
from coinfer.artefacts import default_store, store
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.model import Model, load_model
from coinfer.runtime import model_store
from coinfer.zoo.files import export

NAMES = ("mobilenet_v2", "squeezenet1_1", "small_resnet")
SIZES = {"mobilenet_v2": 100, "squeezenet1_1": 100, "small_resnet": 100}
CPU = Processor(name="cpu", backend="onnxruntime", units=frozenset({"core0"}))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Model]:
    folder = tmp_path_factory.mktemp("models")
    export(NAMES, folder)
    return {name: load_model(folder / f"{name}.onnx") for name in NAMES}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    monkeypatch.setenv("COINFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("COINFER_ARTEFACTS", raising=False)
    monkeypatch.setattr(store, "_warned", set())
    return tmp_path / "cache"


def engine(models: Mapping[str, Model]) -> Engine:
    """An engine that holds one of the models at a time."""
    entries = {
        ProfileKey(name, "cpu"): Measurement(seconds=(0.01,), load_s=0.01, resident_bytes=size)
        for name, size in SIZES.items()
    }
    return Engine(
        models, processors=[CPU], profile=Profile(entries), memory={"host": "100B"}, pin=False
    )


def serve(running: Engine, models: Mapping[str, Model], rounds: int = 2) -> None:
    """Ask every model in turn, which loads it each time, and see that all is answered."""
    for _ in range(rounds):
        for name in NAMES:
            found = running.infer(name, models[name].sample_inputs(), timeout_s=60.0)
            assert all(np.isfinite(np.asarray(value)).all() for value in found.values())
    stats = running.stats()
    assert [stats.models[name].completed for name in NAMES] == [rounds] * len(NAMES)
    assert [stats.models[name].failed for name in NAMES] == [0] * len(NAMES)
    assert stats.memory.evictions >= rounds * len(NAMES) - 1


def said(caplog: pytest.LogCaptureFixture, part: str) -> list[str]:
    return [text for text in caplog.messages if part in text]


def test_a_full_disk_costs_artefacts_and_nothing_else(
    models: Mapping[str, Model],
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    usage = shutil.disk_usage(cache.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
    with engine(models) as running:
        serve(running, models)
        assert not running.warnings
    assert len(said(caplog, "only 0 B are free on the disk")) == 1
    assert default_store().entries() == []


def test_a_cache_that_cannot_be_written_costs_artefacts_and_nothing_else(
    models: Mapping[str, Model], cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.write_text("a file where the folder should be")
    with engine(models) as running:
        serve(running, models)
        assert not running.warnings
    assert len(said(caplog, "no artefact of model")) == 1


def test_a_damaged_artefact_is_made_again_when_it_is_needed(
    models: Mapping[str, Model], cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with engine(models) as running:
        serve(running, models)
        entry = next(e for e in default_store().entries() if not e.in_use)
        assert entry.artefact is not None
        folder = default_store().folder / entry.digest
        name, stored = next(iter(entry.artefact.files.items()))
        (folder / name).write_bytes(bytes(stored.size))
        serve_again = running.infer(
            entry.artefact.model, models[entry.artefact.model].sample_inputs(), timeout_s=60.0
        )
        assert all(np.asarray(value).any() for value in serve_again.values())
        assert not running.warnings
    assert len(said(caplog, "is damaged")) == 1
    assert default_store().verify(entry.digest) == ""


def test_a_library_that_fails_to_load_once_is_asked_again_with_one_warning(
    models: Mapping[str, Model],
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with engine(models) as running:
        serve(running, models, 1)
        fails = iter([True])
        make = model_store.load

        def once(*args: object, **kwargs: object) -> object:
            if next(fails, False):
                raise RuntimeError("the library said no")
            return make(*args, **kwargs)  # type: ignore[arg-type]

        monkeypatch.setattr(model_store, "load", once)
        serve_counts = [running.stats().models[name].completed for name in NAMES]
        for name in NAMES:
            running.infer(name, models[name].sample_inputs(), timeout_s=60.0)
        stats = running.stats()
        assert [stats.models[n].completed for n in NAMES] == [n + 1 for n in serve_counts]
        assert stats.memory.failed == 1
        assert len(running.warnings) == 1
        assert "is tried again" in running.warnings[0]
    assert len(said(caplog, "could not be loaded")) == 1
    assert not [record for record in caplog.records if record.levelno > logging.WARNING]
