"""An engine that chooses its policy also loads models where the load of now is served best."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from coinfer.api import Engine
from coinfer.api.policy_thread import PolicyThread
from coinfer.backends.null import Faults, NullBackend
from coinfer.core.events import ProcessorLost
from coinfer.core.request import Request
from coinfer.errors import BackendError, PolicyError
from coinfer.experiments.auto_policy import AutoPolicy
from coinfer.experiments.policy_controller import Due
from coinfer.experiments.policy_review import Advice, Review
from coinfer.hardware import default_processors, find_cores
from coinfer.machine.machine import Machine
from coinfer.machine.profile import Profile
from coinfer.machine.scaling import Scaling
from coinfer.plan import Plan
from coinfer.planner.column_review import ColumnAdvice, ColumnReview, review_columns
from coinfer.planner.passes import worth_loading
from hardware import fake_machines as fakes
from runtime.engines import FEED, MODEL

SCALING = {"front": Scaling(mean_s=0.02, serial=0.08), "rear": Scaling(mean_s=0.04, serial=0.08)}
RATES = {"front": 400.0, "rear": 400.0}
WIDE = ("cpu0-7", "cpu8-15")


def desktop(root: Path) -> Plan:
    """A plan for a desktop of 16 cores with two caches, on which all is loaded wide."""
    cores = find_cores(root=fakes.desktop(root), affinity=range(32))
    found = default_processors(["onnxruntime"], cores=cores)
    processors = tuple(replace(p, backend="null", cores=()) for p in found)
    table = {
        model: {p.name: each.seconds(p.threads, 1.3 if p.spread else 1.0) for p in processors}
        for model, each in SCALING.items()
    }
    machine = Machine(processors=processors, profile=Profile.from_seconds(table))
    plan = Plan.of(machine)
    pairs = {(model, name) for model in SCALING for name in WIDE}
    return replace(plan.loading(plan.profile.of_pairs(pairs)), rates={"front": 10.0, "rear": 10.0})


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return desktop(tmp_path)


def engine_of(plan: Plan, faults: Faults | None = None) -> Engine:
    engine = Engine.__new__(Engine)
    super(Engine, engine).__init__(
        plan, dict.fromkeys(plan.models, MODEL), backends={"null": NullBackend(faults=faults)}
    )
    return engine


def busy(per_s: float) -> Due:
    """Requests that come evenly."""
    requests = [
        Request(n, ("front", "rear")[n % 2], n / per_s, n / per_s + 1.0) for n in range(1000)
    ]
    return Due(requests, 1000 / per_s, has_drifted=True)


def loaded(engine: Engine) -> dict[str, set[str]]:
    return {name: set(engine.placement(name)) for name in engine.models}


def test_models_move_to_what_the_load_of_now_wants_and_nothing_is_lost(plan: Plan) -> None:
    with engine_of(plan) as engine:
        engine.change_policy("auto")
        thread = engine._policy_thread
        assert thread is not None
        asked = engine.column_review(busy(400.0), 0.03)
        assert asked is not None
        advice = review_columns(asked)
        assert set(advice.columns) == {"front", "rear"}
        answers, ended = [], threading.Event()

        def ask() -> None:
            while not ended.is_set():
                answers.append(engine.submit("front", FEED))
                answers[-1].result(10)

        asking = threading.Thread(target=ask)
        asking.start()
        engine.settle_columns(thread, advice)
        ended.set()
        asking.join()
        assert all("y" in answer.result(10) for answer in answers)
        assert loaded(engine) == {name: set(at) for name, (at, _) in advice.columns.items()}
        assert engine.plan.rates == advice.rates
        assert engine.plan.models["rear"].choices[-1].by == "auto"
        assert not engine.warnings
        again = engine.column_review(busy(400.0), 0.03)
        assert again is not None
        assert not review_columns(again).columns


def test_rates_are_compared_only_while_nobody_follows_them(plan: Plan) -> None:
    with engine_of(plan) as engine:
        assert engine._watched_rates() == {"front": 10.0, "rear": 10.0}
        engine.change_policy("auto")
        assert engine._watched_rates() == {}
        engine.change_policy("edf")
        assert engine._watched_rates() == {"front": 10.0, "rear": 10.0}
        engine.move("rear", [p.name for p in plan.processors])
        engine.change_policy("auto")
        assert engine._watched_rates() == {"rear": 10.0}
    everywhere = Plan.of(plan.machine)
    with engine_of(replace(everywhere, rates=plan.rates)) as engine:
        engine.change_policy("auto")
        assert engine.column_review(busy(400.0), 0.03) is None
        assert engine._watched_rates() == plan.rates


def test_advice_that_comes_too_late_or_cannot_be_followed_changes_nothing(plan: Plan) -> None:
    faults = Faults()
    with engine_of(plan, faults) as engine:
        engine.change_policy("auto")
        thread = engine._policy_thread
        assert thread is not None
        before = loaded(engine)
        faults.fail_load(model="front", processor="cpu0")
        engine.settle_columns(thread, ColumnAdvice({"front": (["cpu0"], [])}, RATES, "sooner"))
        assert loaded(engine) == before
        assert engine.plan.rates == plan.rates
        (text,) = engine.warnings
        assert text.startswith("front stays where it is loaded: ")
        engine.change_policy("edf")
        engine.settle_columns(thread, ColumnAdvice({"front": (["cpu1"], [])}, {}, "sooner"))
        assert loaded(engine) == before


def test_only_what_moved_has_the_rates_of_now(plan: Plan) -> None:
    faults = Faults()
    with engine_of(plan, faults) as engine:
        engine.change_policy("auto")
        thread = engine._policy_thread
        assert thread is not None
        faults.fail_load(model="front", processor="cpu0")
        columns = {"front": (["cpu0"], ["why"]), "rear": (["cpu1"], ["why"])}
        rates = {"front": 50.0, "rear": 70.0}
        engine.settle_columns(thread, ColumnAdvice(columns, rates, "sooner"))
        assert loaded(engine)["rear"] == {"cpu1"}
        assert engine.plan.rates == {"front": 10.0, "rear": 70.0}


def test_rates_of_what_cannot_move_are_compared(plan: Plan) -> None:
    everywhere = plan.loading(
        plan.measured.where(lambda key: key.model == "front" or key.processor in WIDE)
    )
    with engine_of(everywhere) as engine:
        assert engine._movable() == ["rear"]
        engine.change_policy("auto")
        assert engine._watched_rates() == {"front": 10.0}


def test_the_thread_reviews_processors_before_the_policy_and_goes_on_if_that_fails(
    plan: Plan,
) -> None:
    order: list[str] = []

    def columns(asked: ColumnReview, _limit_s: float, _started: object) -> ColumnAdvice:
        order.append("columns")
        if len(order) > 2:
            raise PolicyError("it broke")
        return ColumnAdvice({"front": (["cpu0", "cpu1"], ["why"])}, {"front": 50.0}, "sooner")

    def policy(asked: Review, _limit_s: float, _started: object) -> Advice:
        order.append(f"policy on {len(asked.plan.models['front'].original.spans)}")
        return Advice(asked.plan.policy, 0.0, "", 0)

    with engine_of(plan) as engine:
        thread = PolicyThread(engine, AutoPolicy(interval_s=0.06), engine._limits, policy, columns)
        engine._policy_thread = thread
        engine.note_requests(thread.controller.seen.note)
        thread.start()
        while len(order) < 4:
            engine.infer("front", FEED)
        assert order[:4] == ["columns", "policy on 2", "columns", "policy on 2"]
        assert loaded(engine)["front"] == {"cpu0", "cpu1"}
        assert engine.plan.rates == {"front": 50.0, "rear": 10.0}
        assert "on which processors models are loaded could not be reviewed: it broke" in (
            engine.warnings
        )


@pytest.mark.parametrize("returns", [True, False])
def test_a_model_goes_back_if_only_half_of_what_was_advised_can_be_done(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, returns: bool
) -> None:
    real = worth_loading.room_for
    monkeypatch.setattr(worth_loading, "room_for", lambda every: real(every)._replace(threads=0))
    asked: list[list[str]] = []
    with engine_of(plan) as engine:
        engine.change_policy("auto")
        thread, move = engine._policy_thread, engine.move
        assert thread is not None

        def moved(name: str, at: list[str], *why: object) -> None:
            asked.append(list(at))
            if len(asked) == 2 or (len(asked) == 3 and not returns):
                raise BackendError("no thread left")
            move(name, at, *why)  # type: ignore[arg-type]

        monkeypatch.setattr(engine, "move", moved)
        wanted = ["cpu0-7", "cpu0-1"]
        engine.settle_columns(thread, ColumnAdvice({"front": (wanted, [])}, RATES, "sooner"))
        assert asked == [["cpu0-7"], wanted, list(WIDE)]
        assert loaded(engine)["front"] == ({*WIDE} if returns else {"cpu0-7"})
        assert engine.plan.rates == plan.rates
        assert list(engine.warnings) == [
            "front stays where it is loaded: no thread left"
            if returns
            else "front is left on cpu0-7: no thread left; nor back: no thread left"
        ]


def test_a_model_that_is_unloaded_meanwhile_keeps_no_other_from_moving(plan: Plan) -> None:
    class Advised(dict[str, tuple[list[str], list[str]]]):
        def __getitem__(self, name: str) -> tuple[list[str], list[str]]:
            if "rear" in engine.models:
                engine.unload("rear")
            return super().__getitem__(name)

    with engine_of(plan) as engine:
        engine.change_policy("auto")
        thread = engine._policy_thread
        assert thread is not None
        columns = Advised(front=(["cpu0"], []), rear=(["cpu1"], []))
        engine.settle_columns(thread, ColumnAdvice(columns, RATES, "sooner"))
        assert loaded(engine) == {"front": {"cpu0"}}
        assert engine.plan.rates == {"front": 400.0}


def test_processors_out_of_service_are_not_advised(plan: Plan) -> None:
    with engine_of(plan) as engine:
        engine.change_policy("auto")
        engine._event_loop.tell(ProcessorLost("cpu3", "dead"))
        asked = engine.column_review(busy(400.0), 0.03)
        assert asked is not None
        assert asked.lost == {"cpu3"}
