"""Models of a repository come, change and go while others are served."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import coinfer
from coinfer.ensembles import parse_ensemble
from coinfer.errors import (
    CoinferError,
    ForbiddenError,
    NotOfferedError,
    NotReadyError,
    UnknownNameError,
)
from coinfer.profiling import memory
from coinfer.server.control import RepositoryControl
from coinfer.server.model_folder import Stamp, read_model_folder, repository_folders
from coinfer.server.opening import open_folders
from coinfer.server.request import InferRequest, InputTensor
from coinfer.server.service import Service
from coinfer.testing.models import model_from_text


def put(repository: Path, name: str, version: int, factor: float) -> None:
    """Write a model that multiplies by a factor."""
    text = f"agraph (float[N,4] x) => (float[N,4] y) <float f = {{{factor}}}> {{ y = Mul(x, f) }}"
    folder = repository / name / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    ir.save(model_from_text(text, name=name).graph, folder / "model.onnx")


class Served:
    """A repository that is served, without a transport."""

    def __init__(
        self,
        repository: Path,
        policy: str | None = None,
        weights: Mapping[str, float] | None = None,
        memory: str | None = None,
    ) -> None:
        self.repository = repository
        folders = [read_model_folder(each) for each in repository_folders([repository]).values()]
        opened = open_folders(folders, policy=policy, memory=memory)
        assert isinstance(opened.engine, coinfer.Engine)
        self.engine = opened.engine
        self.service = Service()
        self.service.weights = weights or {}
        self.service.open(opened.engine, opened.models)
        self.control = RepositoryControl(self.service, self.engine, [repository], folders)
        self.service.control = self.control
        self.stamps: dict[str, Stamp] = {}

    def factor(self, name: str = "m", version: str = "", width: int = 4) -> tuple[float, str]:
        """Ask, and return what it multiplied by and the version that answered."""
        ones = InputTensor("x", "FP32", np.ones((1, width), np.float32))
        response = self.service.infer(InferRequest(name, [ones], version)).response(30)
        array = response.outputs[0].array
        assert array is not None
        return float(array[0, 0]), response.version

    def look(self, times: int = 2) -> None:
        """Look at the repository: what changed is taken over once it is at rest."""
        for _ in range(times):
            self.control.follow(self.stamps)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("COINFER_CACHE", str(tmp_path / "cache"))
    repository = tmp_path / "repository"
    put(repository, "m", 1, 2.0)
    made = Served(repository)
    try:
        yield made
    finally:
        made.engine.stop()


def test_a_server_that_chooses_its_policy_notes_what_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COINFER_CACHE", str(tmp_path / "cache"))
    put(tmp_path / "repository", "m", 1, 2.0)
    served = Served(tmp_path / "repository", policy="auto")
    with served.engine:
        assert served.factor() == (2.0, "1")
        put(served.repository, "m", 2, 3.0)
        served.look()
        assert served.factor() == (3.0, "2")
        thread = served.engine._policy_thread
        assert thread is not None
        assert {name for name, _, _ in thread.controller.seen.counts} == {"m/1", "m/2"}


def test_the_highest_version_is_served(served: Served) -> None:
    assert served.factor() == (2.0, "1")
    put(served.repository, "m", 10, 10.0)
    put(served.repository, "m", 9, 9.0)
    served.control.load("m", {})
    assert served.factor() == (10.0, "10")
    with pytest.raises(UnknownNameError, match="version of model 'm' '1'"):
        served.factor(version="1")
    assert list(served.engine.models) == ["m/10"]


def test_no_request_is_lost_while_a_version_takes_over(served: Served) -> None:
    stop, seen, errors = threading.Event(), set[tuple[float, str]](), list[Exception]()

    def ask() -> None:
        while not stop.is_set():
            try:
                seen.add(served.factor())
            except CoinferError as error:
                errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for version in (2, 3):
        put(served.repository, "m", version, float(version))
        served.look()
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors
    assert seen <= {(2.0, "1"), (2.0, "2"), (3.0, "3")}
    assert served.factor() == (3.0, "3")
    assert list(served.engine.models) == ["m/3"]


def test_what_waits_for_its_turn_is_answered_when_its_version_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COINFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("coinfer.server.control._DRAIN_S", 1.0)
    put(tmp_path / "repository", "m", 1, 2.0)
    served = Served(tmp_path / "repository", weights={"light": 0.01, "heavy": 1.0})
    tenants = served.service.tenants
    assert tenants is not None
    try:
        assert served.factor() == (2.0, "1")
        monkeypatch.setattr(tenants._work, "has_room", lambda: False)
        monkeypatch.setattr(tenants._work, "can_start", lambda _model: False)
        ones = InputTensor("x", "FP32", np.ones((1, 4), np.float32))
        asked = [served.service.infer(InferRequest("m", [ones]), tenant="light") for _ in range(5)]
        assert tenants.n_held == 5
        put(served.repository, "m", 2, 3.0)
        served.look()
        assert [each.response(10).version for each in asked] == ["1"] * 5
        assert not any("m/1" in names for names in (tenants._work._costs, tenants._work._ran_on))
    finally:
        tenants.close("the end")
        served.engine.stop()


def test_a_file_that_was_changed_in_place_takes_over(served: Served) -> None:
    put(served.repository, "m", 1, 5.0)
    served.look()
    assert served.factor() == (5.0, "1")


def test_a_model_may_come_and_go(served: Served) -> None:
    put(served.repository, "new", 1, 7.0)
    served.look()
    assert served.factor("new") == (7.0, "1")
    (served.repository / "new" / "1" / "model.onnx").unlink()
    (served.repository / "new" / "1").rmdir()
    (served.repository / "new").rmdir()
    served.look()
    with pytest.raises(UnknownNameError):
        served.factor("new")
    assert served.factor() == (2.0, "1")


def test_a_broken_version_leaves_the_old_one(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    folder = served.repository / "m" / "2"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"no model")
    served.look(4)
    assert served.factor() == (2.0, "1")
    assert len([r for r in caplog.records if "is served as it was" in r.message]) == 1
    with pytest.raises(CoinferError):
        served.control.load("m", {})


def test_unloading_and_loading_again(served: Served) -> None:
    served.control.unload("m")
    with pytest.raises(UnknownNameError):
        served.factor()
    served.look()  # what a client unloaded stays so
    assert served.control.index() == [
        {"name": "m", "version": "", "state": "UNAVAILABLE", "reason": "unloaded"}
    ]
    assert served.engine.models == ()
    served.control.load("m", {})
    assert served.factor() == (2.0, "1")
    with pytest.raises(UnknownNameError, match="unknown model 'x'"):
        served.control.load("x", {})
    with pytest.raises(NotOfferedError, match="'config' is not offered"):
        served.control.load("m", {"config": "{}"})


def test_what_config_pbtxt_says_is_followed(served: Served) -> None:
    config = """max_batch_size: 8
        input { name: "x" data_type: TYPE_FP32 dims: 4 }
        output { name: "y" data_type: TYPE_FP32 dims: 4 }
        version_policy { all {} }
        dynamic_batching { priority_levels: 3 default_priority_level: 2
          default_queue_policy { default_timeout_microseconds: 500000 } }"""
    (served.repository / "m" / "config.pbtxt").write_text(config)
    put(served.repository, "m", 2, 4.0)
    served.control.load("m", {})
    assert served.factor(version="1") == (2.0, "1")
    assert served.factor() == (4.0, "2")
    found = served.service.catalogue.find("m")
    assert (found.most_batch, found.level, found.deadline_s) == (8, 2, 0.5)
    config = config.replace("dims: 4 }", "dims: 5 }", 1)
    (served.repository / "m" / "config.pbtxt").write_text(config)
    with pytest.raises(CoinferError, match="input 'x'"):
        served.control.load("m", {})
    assert served.factor() == (4.0, "2")


def test_our_own_options_are_followed(served: Served) -> None:
    options = served.repository / "m" / "coinfer.yaml"
    options.write_text("deadline: 250ms\npriority: 3\nmax_batch: 2\non_late: drop\n")
    served.control.load("m", {})
    found = served.service.catalogue.find("m")
    assert (found.deadline_s, found.priority, found.most_batch) == (0.25, 3, 2)
    options.write_text("dead_line: 250ms\n")
    with pytest.raises(CoinferError, match=r"coinfer.yaml:1: .*dead_line"):
        served.control.load("m", {})


def test_a_model_of_which_one_version_is_broken_leaves_nothing_behind(served: Served) -> None:
    (served.repository / "m" / "config.pbtxt").write_text("version_policy { all {} }")
    put(served.repository, "m", 2, 3.0)
    (served.repository / "m" / "3").mkdir()
    (served.repository / "m" / "3" / "model.onnx").write_bytes(b"no model")
    for _ in range(3):
        with pytest.raises(CoinferError):
            served.control.load("m", {})
    assert served.engine.models == ("m/1",)
    assert served.factor() == (2.0, "1")


def test_a_configuration_names_no_files_elsewhere(served: Served, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a\nb\nc\nd")
    config = served.repository / "m" / "config.pbtxt"
    label = 'output { name: "y" label_filename: "%s" }'
    for name in ("../../secret", str(tmp_path / "secret")):
        config.write_text(label % name)
        with pytest.raises(CoinferError, match="put them there"):
            served.control.load("m", {})
    (served.repository / "m" / "link").symlink_to(tmp_path / "secret")
    config.write_text(label % "link")
    with pytest.raises(CoinferError, match="put them there"):
        served.control.load("m", {})
    config.write_text('default_model_filename: "../../m/1/model.onnx"')
    with pytest.raises(CoinferError, match="is no name of a file"):
        served.control.load("m", {})
    assert served.factor() == (2.0, "1")


def test_a_folder_whose_name_is_no_text_is_no_model(tmp_path: Path) -> None:
    put(tmp_path, "m", 1, 2.0)
    try:
        (tmp_path / os.fsdecode(b"a\xff")).mkdir()
    except OSError:
        pytest.skip("this file system has texts for names only")
    assert list(repository_folders([tmp_path])) == ["m"]


def test_clients_are_not_told_where_the_repository_is(served: Served) -> None:
    (served.repository / "m" / "2").mkdir()
    (served.repository / "m" / "2" / "model.onnx").write_bytes(b"no model")
    put(served.repository, "broken", 1, 1.0)
    (served.repository / "broken" / "1" / "model.onnx").write_bytes(b"no model")
    (served.repository / "broken" / "coinfer.yaml").write_text("nonsense: 1")
    told = []
    for name in ("m", "broken"):
        with pytest.raises(CoinferError) as caught:
            served.control.load(name, {})
        told.append(str(caught.value))
    served.look(4)
    told += [each["reason"] for each in served.control.index()]
    assert "m/2/model.onnx" in told[0]
    assert all(str(served.repository.parent) not in each for each in told)


TWICE = """
ensemble: twice
inputs: {x: {datatype: FP32, shape: [N, 4]}}
stages:
  - {name: first, model: m, inputs: {x: x}}
  - {name: then, model: m, inputs: {x: first.y}}
outputs: {y: then.y}
"""


def test_an_ensemble_loses_no_request_while_a_version_takes_over(served: Served) -> None:
    served.service.ensembles.add([parse_ensemble(TWICE)])
    stop, seen, errors = threading.Event(), set[float](), list[Exception]()

    def ask() -> None:
        while not stop.is_set():
            try:
                seen.add(served.factor("twice")[0])
            except CoinferError as error:
                errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    put(served.repository, "m", 2, 3.0)
    served.look()
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors
    assert seen <= {4.0, 6.0, 9.0}
    assert served.factor("twice") == (9.0, "1")


def test_a_folder_with_the_name_of_an_ensemble_does_not_replace_it(served: Served) -> None:
    served.service.ensembles.add([parse_ensemble(TWICE)])
    put(served.repository, "twice", 1, 5.0)
    served.look(3)
    assert served.factor("twice") == (4.0, "1")
    with pytest.raises(ForbiddenError, match="'twice' is an ensemble"):
        served.service.load_model("twice", {})


def test_an_ensemble_comes_back_with_its_model(served: Served) -> None:
    served.service.ensembles.add([parse_ensemble(TWICE)])
    served.control.unload("m")
    assert not served.service.is_model_ready("twice")
    with pytest.raises(NotReadyError, match="stage 'first': model 'm' is not served now"):
        served.factor("twice")
    served.control.load("m", {})
    assert served.service.is_model_ready("twice")
    assert served.factor("twice") == (4.0, "1")


def test_nothing_is_kept_of_versions_that_are_gone(served: Served) -> None:
    for number in range(2, 6):
        assert served.factor() == (float(number), str(number - 1))
        put(served.repository, "m", number, number + 1.0)
        served.control.load("m", {})
    assert served.factor() == (6.0, "5")
    service = served.service
    assert set(service.watch.backlog._costs) == {"m/5"}
    assert set(service.statistics.models) == {"m/5"}
    assert set(service._submitting) <= {"m/5"}


def put_large(repository: Path, name: str, factor: float) -> None:
    """Write a model of 4 MiB that multiplies by a factor."""
    weights = numpy_helper.from_array(np.eye(1024, dtype=np.float32) * np.float32(factor), "w")
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 1024]) for n in "xy")
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", [x], [y], [weights])
    opset = helper.make_opsetid("", 17)
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), folder / "model.onnx")


def test_models_beyond_the_budget_are_loaded_when_they_are_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COINFER_CACHE", str(tmp_path / "cache"))
    # What is measured of small models depends on what the heap has free: here each takes 6 MiB.
    readings = itertools.count(step=6 * 2**20)
    monkeypatch.setattr(memory, "resident_bytes", lambda: next(readings))
    repository = tmp_path / "repository"
    for name, factor in (("a", 2.0), ("b", 3.0)):
        put_large(repository, name, factor)
    served = Served(repository, memory="20MiB")  # one needs 12 MiB while it runs
    with served.engine:
        assert [served.factor(name, width=1024)[0] for name in "abab"] == [2.0, 3.0, 2.0, 3.0]
        before = served.engine.stats().memory.evictions
        assert before
        put_large(repository, "c", 4.0)
        with pytest.raises(UnknownNameError, match="unknown model 'c'"):
            served.factor("c", width=1024)  # nobody followed the repository
        served.control.load("c", {})
        assert [served.factor(name, width=1024)[0] for name in "cacb"] == [4.0, 2.0, 4.0, 3.0]
        assert served.engine.stats().memory.evictions > before
