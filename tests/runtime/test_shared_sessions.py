"""Models of equal content under several names have one session per span and processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from coinfer.api import Engine
from coinfer.backends.base import Session, Tensors
from coinfer.backends.onnxruntime import OnnxRuntimeBackend
from coinfer.errors import BackendError
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.model import Model, load_model
from coinfer.testing.models import tiny_linear
from planner.cut_models import chain_with_skip, cut

NAMES = ("one", "two", "other")


class Noting:
    """A session that notes that it is closed."""

    def __init__(self, session: Session, closed: list[str], name: str) -> None:
        self._session = session
        self._closed = closed
        self._name = name

    def run(self, inputs: Tensors) -> Any:
        return self._session.run(inputs)

    def placement(self) -> Any:
        return self._session.placement()

    def close(self) -> None:
        self._closed.append(self._name)
        self._session.close()


class Counting(OnnxRuntimeBackend):
    """It notes what is loaded and what is closed, by the model's name."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.closed: list[str] = []

    def load(self, model: Model, processor: Processor) -> Any:
        self.loaded.append(model.name)
        return Noting(super().load(model, processor), self.closed, model.name)


def processors(*names: str) -> list[Processor]:
    return [Processor(name=n, backend="onnxruntime", units=frozenset({n})) for n in names]


def profile(*models: str) -> Profile:
    return Profile.from_seconds({model: {"p0": 1e-3, "p1": 1e-3} for model in models})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    ir.save(tiny_linear().model.graph, tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def engine(models: dict[str, Any], backend: Counting, **options: Any) -> Engine:
    return Engine(
        models,
        processors=processors("p0", "p1"),
        backends={"onnxruntime": backend},
        pin=False,
        **options,
    )


def test_a_file_under_two_names_is_compiled_once(file: Path) -> None:
    backend = Counting()
    feed = {"x": np.ones((1, 4), np.float32)}
    with engine({"one": file, "two": file}, backend, profile=profile("one", "two")) as running:
        assert len(backend.loaded) == 1  # the two processors share it too
        answers = [running.submit(name, feed) for name in ("one", "two") * 20]
        for answer in answers:
            np.testing.assert_array_equal(answer.result(20)["y"], answers[0].result(20)["y"])
        running.unload("one")
        assert backend.closed == []
        running.infer("two", feed)
        running.load("three", file, profile("three"))
        running.unload("two")
        assert running.infer("three", feed)["y"].shape == (1, 3)
        assert (len(backend.loaded), backend.closed) == (1, [])
        running.unload("three")
        assert len(backend.closed) == 1
        running.load("three", file, profile("three"))
        assert len(backend.loaded) == 2
    assert len(backend.closed) == 2


def test_other_weights_have_sessions_of_their_own(file: Path) -> None:
    changed = tiny_linear().model.graph.clone()
    changed.graph.initializers["b"].const_value = ir.tensor(np.zeros(3, np.float32), name="b")
    ir.save(changed, file.with_name("other.onnx"))
    backend = Counting()
    models = {"one": file, "two": load_model(file), "other": file.with_name("other.onnx")}
    feed = {"x": np.zeros((1, 4), np.float32)}
    with engine(models, backend, profile=profile(*models)) as running:
        assert len(backend.loaded) == 2
        assert not running.infer("other", feed)["y"].any()
        assert running.infer("two", feed)["y"].all()


def test_equal_cuts_share_the_sessions_of_their_spans() -> None:
    example = chain_with_skip()
    backend = Counting()
    twice = {
        name: cut(example.model, at, ["p0"]).renamed(name)
        for name, at in (("one", [2, 4]), ("two", [2, 4]), ("other", [3]))
    }
    feed = example.model.sample_inputs()
    with engine(twice, backend, batch="off") as running:
        spans = {name: len(twice[name].pieces) for name in twice}
        whole = 1  # of all units: it is the same model however it is cut
        assert len(set(backend.loaded)) == spans["one"] + spans["other"] - whole
        # The whole one is loaded once more where it is not known yet which axis is the batch.
        assert all(backend.loaded.count(n) == 1 for n in backend.loaded if n != "one")
        running.unload("one")
        for name in ("two", "other"):
            for key, value in example.reference(feed).items():
                np.testing.assert_allclose(running.infer(name, feed)[key], value, rtol=1e-4)


def test_a_model_that_cannot_be_loaded_leaves_the_sessions_of_its_twin(file: Path) -> None:
    class Failing(Counting):
        def load(self, model: Model, processor: Processor) -> Any:
            if self.loaded and processor.name == "p1":
                raise RuntimeError("no room")
            return super().load(model, processor)

        def sharing_key(self, processor: Processor) -> Any:
            return processor.name

    backend = Failing()
    feed = {"x": np.ones((1, 4), np.float32)}
    on_one = Profile.from_seconds({"one": {"p0": 1e-3}})
    with engine({"one": file}, backend, profile=on_one) as running:
        with pytest.raises(BackendError, match="no room"):
            running.load("two", file, profile("two"))
        assert backend.closed == []
        assert running.infer("one", feed)["y"].shape == (1, 3)
