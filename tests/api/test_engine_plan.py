"""The plan of an engine says what runs, also after models came and went."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.engines import FEED, MODEL, null_engine

import coinfer
from coinfer.backends.null import Faults, NullBackend
from coinfer.errors import ConfigurationError, UnknownNameError
from coinfer.hardware.cores import available_cores
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.plan.plan_folder import save_plan
from coinfer.policies import make_policy
from coinfer.testing.models import model_from_text, tiny_linear

OWN = Processor(name="a", backend="own", units=frozenset({"a"}))
TIMES = Profile.from_seconds({"m": {"a": 0.01}})


def test_a_processor_that_could_not_take_a_model_is_not_in_the_plan() -> None:
    narrow = Processor(name="p0", backend="null", units=frozenset({"a"}))
    wide = Processor(name="w", backend="null", units=frozenset({"a", "b"}), threads=2)
    faults = Faults()
    faults.fail_load(processor="w")
    with coinfer.Engine(
        {"m": MODEL},
        processors=[narrow, wide],
        profile=Profile.from_seconds({"m": {"p0": 0.01, "w": 0.005}}),
        backends={"null": NullBackend(faults=faults)},
        pin=False,
    ) as engine:
        assert engine.placement("m").keys() == {"p0"}
        assert engine.plan.models["m"].original.spans.keys() == {"p0"}


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ("auto", "none: with a given profile nobody has seen whether answers change"),
        ("off", "none: as asked"),
        ({"max": 4}, "up to 4, as asked"),
        ({"max": 4, "pad": ["C"]}, "up to 4, as asked"),
    ],
)
def test_with_a_given_profile_the_plan_says_what_is_not_batched_and_not_padded(
    batch: Any, said: str
) -> None:
    model = model_from_text("agraph (float[N,C] x) => (float[N,C] y) { y = Relu(x) }", name="m")
    used = [OWN]
    with coinfer.Engine(
        {"m": model}, processors=used, profile=TIMES, backends={"own": NullBackend()}, batch=batch
    ) as engine:
        [choice] = [each for each in engine.plan.models["m"].choices if each.by == "batching"]
        assert said in str(choice)
        warned = [text for text in engine.warnings if "padded along C" in text]
        assert len(warned) == ("pad" in batch)


def test_models_that_come_and_go_leave_nothing_behind() -> None:
    times = Profile.from_seconds({"x": {"p0": 1e-4}})
    with null_engine("p0") as engine:
        before = engine.plan
        for _ in range(3):
            engine.load("x", tiny_linear().model, times)
            assert engine.plan.models.keys() == {"m", "x"}
            engine.unload("x")
        assert engine.plan == before


def test_a_policy_that_is_an_object_is_not_taken_for_the_default() -> None:
    with null_engine("p0", policy=make_policy("edf")) as engine:
        assert engine.plan.policy.name == "an object of EarliestDeadlineFirst"
    with null_engine("p0", policy="edf") as engine:
        assert engine.plan.policy.name == "edf"


def test_a_wrong_policy_is_said_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def must_not_run(*_: object, **__: object) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr("coinfer.api.engine.make_plan", must_not_run)
    with pytest.raises(UnknownNameError, match="earliest_finish"):
        coinfer.Engine({"m": MODEL}, policy="earliest_finsh")
    with pytest.raises(ConfigurationError, match="does not inherit from"):
        coinfer.Engine({"m": MODEL}, policy=object())  # type: ignore[arg-type]


@pytest.mark.parametrize("profile", [TIMES, None], ids=["given", "measured"])
def test_a_backend_of_the_callers_own_is_used(profile: Profile | None) -> None:
    with coinfer.Engine(
        {"m": MODEL}, processors=[OWN], profile=profile, backends={"own": NullBackend()}
    ) as engine:
        assert engine.infer("m", FEED)


def test_a_plan_opens_with_the_backend_that_is_handed_over(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(MODEL.to_bytes())
    own: Callable[[], NullBackend] = NullBackend
    with coinfer.Engine(
        {"m": path}, processors=[OWN], profile=TIMES, backends={"own": own()}
    ) as engine:
        save_plan(engine.plan, tmp_path / "plan")
    with coinfer.Engine(tmp_path / "plan", backends={"own": own()}) as engine:
        assert engine.infer("m", FEED)
    with pytest.raises(UnknownNameError, match="own"):
        coinfer.Engine(tmp_path / "plan")


@pytest.mark.parametrize("is_urgent", [True, False])
def test_where_urgent_requests_may_come_first_a_plan_opens_warm(
    tmp_path: Path, is_urgent: bool
) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(MODEL.to_bytes())
    express = Processor(
        name="a+", backend="own", units=frozenset({"a+"}), overlays=frozenset({"a"})
    )
    ran: list[str] = []

    def service_s(_model: str, processor: str, _batch: int) -> float:
        ran.append(processor)
        return 0.0

    used = [OWN, express] if is_urgent else [OWN]
    with coinfer.Engine(
        {"m": path}, processors=used, profile=TIMES, backends={"own": NullBackend(service_s)}
    ) as engine:
        assert ran == []  # who gives the times is left alone
        save_plan(engine.plan, tmp_path / "plan")
    with coinfer.Engine(tmp_path / "plan", backends={"own": NullBackend(service_s)}):
        assert ran == (["a", "a+"] if is_urgent else [])


def test_a_model_is_loaded_beside_one_that_batches() -> None:
    times = Profile.from_seconds({"x": {"p0": 1e-4}})
    with null_engine("p0", batch={"m": {"max": 8}}) as engine:
        engine.load("x", tiny_linear().model, times)
        assert engine.infer("x", FEED)


def test_the_cores_of_a_plan_are_kept_awake_also_where_nothing_is_pinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[int]] = []

    def awake(cores: list[int]) -> AbstractContextManager[str]:
        asked.append(cores)
        return nullcontext("")

    monkeypatch.setattr("coinfer.api.engine.awake", awake)
    monkeypatch.setenv("COINFER_CACHE", str(tmp_path / "cache"))
    core = available_cores()[0]
    cpu = Processor(name="p0", backend="onnxruntime", units=frozenset({"core0"}), cores=(core,))
    with coinfer.Engine({"m": "zoo:tiny_mlp"}, processors=[cpu]) as engine:
        save_plan(engine.plan, tmp_path / "plan")
    with coinfer.Engine(tmp_path / "plan", pin=False, keep_awake=True) as engine:
        assert asked == [[core]]
        assert all(each.cores == () for each in engine.plan.processors)
