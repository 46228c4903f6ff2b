"""An ensemble on a real engine: a detector, its crops, a classifier."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import coinfer
from coinfer.backends.null import Faults, NullBackend
from coinfer.core.commands import Run
from coinfer.ensembles import Ensemble, load_ensemble, parse_ensemble
from coinfer.errors import ClosedError, DroppedError, ExecutionError, InputError
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.testing.models import tiny_linear
from ensembles.pipelines import FACES, MODELS, STEPS, described, picture
from runtime.engines import null_engine

WAIT_S = 20.0
_CPU = Processor(name="cpu0", backend="onnxruntime", units=frozenset({"core0"}))


def _engine(**options: Any) -> coinfer.Engine:
    times = Profile.from_seconds({name: {"cpu0": 1e-4} for name in MODELS})
    return coinfer.Engine(MODELS, processors=[_CPU], profile=times, pin=False, **options)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ensemble]:
    description = described(tmp_path_factory.mktemp("faces"))
    with _engine() as engine, Ensemble(description, engine, MODELS) as ensemble:
        yield ensemble


@pytest.mark.parametrize("cells", [(), (7,), (0, 9, 10, 33, 63)])
def test_each_crop_is_classified(faces: Ensemble, cells: tuple[int, ...]) -> None:
    answer = faces.submit(picture(*cells)).result(WAIT_S)
    assert answer["scores"].dtype == np.float32
    expected = [np.full(64, 2 * (1 + cell / 100), np.float32) for cell in cells]
    np.testing.assert_allclose(answer["scores"], np.reshape(expected, (-1, 64)), rtol=1e-6)
    assert answer["heat"].shape == (1, 1, 8, 8)


def test_pipelines_that_overlap_get_their_own_answers(faces: Ensemble) -> None:
    futures = [faces.submit(picture(*range(n % 5), 20 + n)) for n in range(40)]
    for n, future in enumerate(futures):
        scores = future.result(WAIT_S)["scores"]
        assert len(scores) == n % 5 + 1
        np.testing.assert_allclose(scores[-1, 0], 2 * (1 + (20 + n) / 100), rtol=1e-6)


def test_it_says_what_it_takes_and_gives(faces: Ensemble) -> None:
    assert [str(spec) for spec in faces.inputs] == ["image: float32[1,1,64,64]"]
    assert [spec.layout for spec in faces.outputs] == ["float32[?,64]", "float32[1,1,8,8]"]
    assert faces.least_s({"detector": 0.25, "classifier": 1.0}.__getitem__) == 0.25


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({}, "image"),
        ({"image": np.zeros((1, 1, 8, 8), np.float32)}, r"takes shape \[1,1,64,64\]"),
        ({"image": np.zeros((1, 1, 64, 64))}, "takes float32 but got float64"),
        (7, "must be arrays by name"),
    ],
)
def test_wrong_inputs_are_refused_at_once(faces: Ensemble, inputs: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        faces.submit(inputs)


def test_a_wrong_argument_is_refused_as_by_the_engine(faces: Ensemble) -> None:
    with pytest.raises(coinfer.errors.ConfigurationError, match="deadline_s must be positive"):
        faces.infer(picture(), deadline_s=-1)


def test_a_file_is_read_with_the_modules_beside_it(tmp_path: Path) -> None:
    (tmp_path / "steps.py").write_text(STEPS)
    file = tmp_path / "faces.yaml"
    file.write_text(FACES)
    with _engine() as engine, Ensemble(load_ensemble(file), engine, MODELS) as ensemble:
        assert len(ensemble.infer(picture(3, 4), timeout_s=WAIT_S)["scores"]) == 2


class _Sizes:
    """Observer that notes how many requests each execution serves."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def observe(self, event: Any, commands: Any, now: float) -> None:
        self.seen += [len(c.execution.requests) for c in commands if type(c) is Run]


def test_stages_of_several_pipelines_share_runs() -> None:
    faults, sizes, model = Faults(), _Sizes(), tiny_linear().model
    faults.hang()
    profile = Profile({ProfileKey("net", "p0", n): Measurement(seconds=(1e-4,)) for n in (1, 8)})
    one = "{ensemble: one, inputs: {x: {datatype: FP32, shape: [N, 4]}}, outputs: {y: only.y}, "
    one += "stages: [{name: only, model: net, inputs: {x: x}}]}"
    with (
        coinfer.Engine(
            {"net": model},
            processors=[Processor(name="p0", backend="null", units=frozenset({"p0"}))],
            profile=profile,
            backends={"null": NullBackend(0.0, faults=faults)},
            batch={"max": 8},
            observer=sizes,
            pin=False,
        ) as engine,
        Ensemble(parse_ensemble(one), engine, {"net": model}) as ensemble,
    ):
        futures = [ensemble.submit({"x": np.zeros((1, 4), np.float32)})]
        assert faults.wait_until_hanging()
        futures += [ensemble.submit({"x": np.zeros((1, 4), np.float32)}) for _ in range(8)]
        faults.release()
        assert all(future.result(WAIT_S)["y"].shape == (1, 3) for future in futures)
    assert sizes.seen == [1, 8]


def _hanging(faults: Faults, folder: Path) -> tuple[coinfer.Engine, Ensemble]:
    engine = null_engine(faults=faults, models=MODELS)
    return engine, Ensemble(described(folder), engine, MODELS)


def test_a_pipeline_that_is_cancelled_asks_nothing_more(tmp_path: Path) -> None:
    faults = Faults()
    faults.hang(model="detector")
    engine, ensemble = _hanging(faults, tmp_path)
    with engine, ensemble:
        future = ensemble.submit(picture(1))
        assert faults.wait_until_hanging()
        assert future.cancel()
        assert future.cancel()
        faults.release()
        engine.drain(WAIT_S)
        assert engine.stats().models["classifier"].completed == 0
    assert future.cancelled()


def test_a_stage_that_would_begin_too_late_ends_the_whole(tmp_path: Path) -> None:
    faults = Faults()
    faults.hang(model="detector")
    engine, ensemble = _hanging(faults, tmp_path)
    with engine, ensemble:
        first = ensemble.submit(picture(1))
        assert faults.wait_until_hanging()
        late = ensemble.submit(picture(1), deadline_s=1e-3, on_late="drop")
        with pytest.raises(DroppedError, match="ensemble 'faces', stage 'find': "):
            late.result(WAIT_S)
        faults.release()
        first.result(WAIT_S)


def test_a_run_that_fails_is_named_by_its_stage(tmp_path: Path) -> None:
    faults = Faults()
    faults.fail(model="detector", times=9)
    engine, ensemble = _hanging(faults, tmp_path)
    with engine, ensemble, pytest.raises(ExecutionError, match="'faces', stage 'find': request"):
        ensemble.infer(picture(1), timeout_s=WAIT_S)


def test_a_pipeline_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    faults = Faults()
    faults.hang(model="detector")
    engine, ensemble = _hanging(faults, tmp_path)
    with engine, ensemble:
        with pytest.raises(TimeoutError, match=r"ensemble 'faces' gave no answer within 0\.01 s"):
            ensemble.infer(picture(1), timeout_s=0.01)
        faults.release()


def test_closing_goes_on_with_what_is_under_way(tmp_path: Path) -> None:
    faults = Faults()
    faults.hang(model="detector")
    engine, ensemble = _hanging(faults, tmp_path)
    with engine:
        future = ensemble.submit(picture(1))
        assert faults.wait_until_hanging()
        closing = threading.Thread(target=ensemble.close)
        closing.start()
        faults.release()
        closing.join(WAIT_S)
        assert set(future.result(0)) == {"scores", "heat"}
        with pytest.raises(ClosedError, match="ensemble 'faces' is closed"):
            ensemble.submit(picture())


def test_an_exception_cancels_what_is_under_way(tmp_path: Path) -> None:
    faults = Faults()
    faults.hang(model="detector")
    engine, ensemble = _hanging(faults, tmp_path)
    with engine:
        future = ensemble.submit(picture(1))
        with pytest.raises(KeyError), ensemble:
            raise KeyError
        assert future.cancelled()
        faults.release()


def test_an_engine_that_stops_ends_pipelines_with_its_reason(tmp_path: Path) -> None:
    faults = Faults()
    faults.hang(model="detector")
    engine, ensemble = _hanging(faults, tmp_path)
    with ensemble:
        first, second = ensemble.submit(picture(1)), ensemble.submit(picture(1))
        assert faults.wait_until_hanging()
        stopping = threading.Thread(target=engine.stop, kwargs={"drain": False})
        stopping.start()
        with pytest.raises(ClosedError, match="stage 'find'"):
            second.result(WAIT_S)
        faults.release()
        stopping.join(WAIT_S)
        # What ran is answered, but no stage after it can begin.
        first.exception(WAIT_S)
