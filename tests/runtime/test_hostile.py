"""Whatever callers hand over, and sessions and policies return: one clear error, others go on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from coinfer.api import Engine
from coinfer.backends.null import NullBackend
from coinfer.core.dispatcher import Limits
from coinfer.core.policy import Policy, Start, WaitUntil
from coinfer.errors import (
    BackendError,
    ConfigurationError,
    ExecutionError,
    InputError,
    PolicyError,
    UnknownNameError,
)
from coinfer.machine.profile import Profile
from runtime.engines import FEED, MODEL, cpus, null_engine

WAIT_S = 20.0


class Hostile:
    """Raises whatever is asked of it."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("__class__", "__dict__"):
            return super().__getattribute__(name)
        raise ZeroDivisionError(name)

    def _raise(self, *_: object) -> Any:
        raise ZeroDivisionError

    __lt__ = __gt__ = __eq__ = __hash__ = __float__ = __index__ = __repr__ = __str__ = _raise
    __len__ = __iter__ = __getitem__ = __array__ = __bool__ = _raise


class Text(str):
    """Equal to nothing, although it looks like a text."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError

    __hash__ = str.__hash__


NO_NUMBERS = [
    "x",
    "1",
    b"1",
    math.nan,
    10**400,
    10**5000,
    True,
    np.bool_(True),
    np.array([1.0, 2.0]),
    1j,
    [],
    {},
    object(),
    Hostile(),
]
WRONG = {
    "priority": [*NO_NUMBERS, math.inf, 1.5, 2**53 + 1, None],
    "due_s": [*NO_NUMBERS, math.inf, -math.inf],
    "deadline_s": [*NO_NUMBERS, math.inf, -1.0, 0, np.float64(0)],
    "on_late": ["x", None, 1, [], Hostile()],
}
RIGHT = {
    "priority": [np.int64(3), -5, 2**53],
    "due_s": [np.float32(1.0), 0, -1e300, 1e300],
    "deadline_s": [np.float64(9.0), 9, 5e-324, 1e308, np.array(9.0)],
    "on_late": ["run", "drop"],
}


def cases(values: dict[str, list[Any]]) -> list[Any]:
    return [
        pytest.param(name, value, id=f"{name}-{at}")
        for name, each in values.items()
        for at, value in enumerate(each)
    ]


@pytest.mark.parametrize(("name", "value"), cases(WRONG))
def test_a_wrong_argument_is_named_and_harms_nobody(name: str, value: Any) -> None:
    with null_engine(policy="priority") as engine:
        with pytest.raises(ConfigurationError, match=name):
            engine.submit("m", FEED, **{name: value})
        with pytest.raises(ConfigurationError, match=name):
            engine.infer("m", FEED, **{name: value})
        assert engine.submit("m", FEED, priority=1).exception(WAIT_S) is None


@pytest.mark.parametrize("policy", ["priority", "earliest_finish", "least_slack", "edf"])
@pytest.mark.parametrize(("name", "value"), cases(RIGHT))
def test_a_strange_but_right_argument_is_served(name: str, value: Any, policy: str) -> None:
    with null_engine(policy=policy) as engine:
        for future in [engine.submit("m", FEED, **{name: value}) for _ in range(5)]:
            future.exception(WAIT_S)
        assert engine.submit("m", FEED).exception(WAIT_S) is None
        assert engine.fault is None


@pytest.mark.parametrize(
    "name", ["", None, 1, [], {}, Hostile(), Text("m"), "m" * 10_000], ids=range(8)
)
def test_a_name_that_is_none_is_unknown_everywhere(name: Any) -> None:
    with null_engine() as engine:
        for ask in (engine.submit, engine.infer, engine.warm_up):
            with pytest.raises(UnknownNameError):
                ask(name, FEED)
        for forget in (engine.unload, engine.placement):
            with pytest.raises(UnknownNameError):
                forget(name)
        if not isinstance(name, str) or not name:
            with pytest.raises(ConfigurationError, match="name"):
                engine.load(name, MODEL, Profile())
        assert engine.submit("m", FEED).exception(WAIT_S) is None


@pytest.mark.parametrize(
    "inputs",
    [
        None,
        1,
        "x",
        [],
        [1],
        object(),
        Hostile(),
        {"x": None},
        {"x": Hostile()},
        {"x": [[1.0]]},
        {1: 2},
        {Text("x"): FEED["x"]},
        {"x": np.array(["a"], object)},
    ],
    ids=range(13),
)
def test_inputs_that_are_none_are_refused(inputs: Any) -> None:
    with null_engine() as engine:
        for ask in (engine.submit, engine.infer, engine.warm_up):
            with pytest.raises(InputError, match="'m'"):
                ask("m", inputs)
        assert engine.submit("m", FEED).exception(WAIT_S) is None


@pytest.mark.parametrize("timeout_s", [*NO_NUMBERS, -1, -math.inf], ids=range(len(NO_NUMBERS) + 2))
def test_a_wrong_patience_changes_nothing(timeout_s: Any) -> None:
    with null_engine() as engine:
        for wait in (engine.drain, lambda timeout_s: engine.stop(timeout_s=timeout_s)):
            with pytest.raises(ConfigurationError, match="timeout_s"):
                wait(timeout_s)
        with pytest.raises(ConfigurationError, match="timeout_s"):
            engine.infer("m", FEED, timeout_s=timeout_s)
        assert engine.submit("m", FEED).exception(WAIT_S) is None


@pytest.mark.parametrize("timeout_s", [math.inf, 1e300, 10, np.float32(10)])
def test_a_long_patience_is_one(timeout_s: Any) -> None:
    with null_engine() as engine:
        engine.infer("m", FEED, timeout_s=timeout_s)
        assert engine.drain(timeout_s)
        engine.stop(timeout_s=timeout_s)


@pytest.mark.parametrize("model", [None, 1, [], Hostile(), b"x"], ids=range(5))
def test_what_is_no_model_is_refused(model: Any) -> None:
    with null_engine() as engine:
        with pytest.raises(ConfigurationError, match="'n'"):
            engine.load("n", model, Profile())
        assert engine.submit("m", FEED).exception(WAIT_S) is None


@pytest.mark.parametrize("name", list(Limits.__dataclass_fields__))
@pytest.mark.parametrize("value", ["x", math.nan, -1, True, [], 1j])
def test_limits_are_numbers(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Limits(**{name: value})


# sessions


class Sessions(NullBackend):
    """Its sessions return what they are told for requests whose inputs are all ones."""

    def __init__(self, run: Callable[[], Any], close: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self._run, self._close = run, close

    def load(self, model, processor):
        session = super().load(model, processor)
        good = session.run
        session.run = lambda inputs: self._run() if inputs["x"].all() else good(inputs)
        session.close = self._close
        return session


def raising(error: BaseException) -> Callable[[], Any]:
    def fail() -> Any:
        raise error

    return fail


ONES = {"x": np.ones_like(FEED["x"])}
ZEROS = {"x": np.zeros_like(FEED["x"])}
PROFILE = Profile.from_seconds({"m": {"p0": 1e-4, "p1": 1e-4}})


def engine_of(backend: NullBackend, **options: Any) -> Engine:
    return Engine(
        {"m": MODEL},
        processors=cpus("p0", "p1"),
        profile=PROFILE,
        backends={"null": backend},
        pin=False,
        **options,
    )


@pytest.mark.parametrize(
    "run",
    [
        lambda: None,
        lambda: 1,
        list,
        dict,
        lambda: {"nope": 1},
        lambda: {"y": None},
        lambda: {"y": [1.0]},
        lambda: {"y": Hostile()},
        Hostile,
        raising(ValueError("oops")),
        raising(SystemExit(3)),
        raising(KeyboardInterrupt()),
        raising(GeneratorExit()),
    ],
    ids=range(13),
)
def test_a_session_that_returns_nonsense_fails_its_request_alone(run: Callable[[], Any]) -> None:
    with engine_of(Sessions(run)) as engine:
        error = engine.submit("m", ONES).exception(WAIT_S)
        assert isinstance(error, ExecutionError)
        assert "model 'm' on processor" in str(error)
        for _ in range(10):
            assert engine.submit("m", ZEROS).exception(WAIT_S) is None
        assert engine.fault is None


def test_a_session_that_returns_one_dictionary_again_and_again_changes_no_answer() -> None:
    made: dict[str, Any] = {}

    def run() -> dict[str, Any]:
        made["y"] = np.full((1, 2), len(answers), np.float32)
        return made

    answers: list[Any] = []
    with engine_of(Sessions(run)) as engine:
        for _ in range(3):
            answer = engine.infer("m", ONES)
            answers.append(answer)
    assert [each["y"][0, 0] for each in answers] == [0, 1, 2]


def test_sessions_that_cannot_be_closed_are_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    backend = Sessions(dict, raising(OSError("oops")))
    with engine_of(backend) as engine:
        engine.load("n", MODEL, Profile.from_seconds({"n": {"p0": 1e-4}}))
        engine.unload("n")
        assert engine.models == ("m",)
        engine.load("n", MODEL, Profile.from_seconds({"n": {"p0": 1e-4}}))
    assert caplog.text.count("could not be closed") == 4


def test_a_backend_that_raises_while_it_loads_is_named() -> None:
    class Broken(NullBackend):
        def load(self, model, processor):
            raise ZeroDivisionError("oops")

    with pytest.raises(BackendError, match=r"model 'm' on processor 'p0'.*oops"):
        engine_of(Broken())


# policies


class Bad(Policy):
    """Returns what it is told once it is armed."""

    def __init__(self, **hooks: Callable[[], Any]) -> None:
        for name, make in hooks.items():
            setattr(self, name, lambda *_, make=make: make())

    def rank(self, request):
        return request.arrival_s

    def pick(self, view):
        found = view.first_startable()
        return found and (found[0], found[1][0])


NONSENSE = [lambda: 1, lambda: "x", list, Hostile, lambda: [[]], raising(ValueError("oops"))]


@pytest.mark.parametrize("hook", ["rank", "pick", "place", "queue", "arrived", "started", "allows"])
@pytest.mark.parametrize("make", NONSENSE, ids=range(len(NONSENSE)))
def test_a_policy_that_returns_nonsense_answers_everybody(
    hook: str, make: Callable[[], Any]
) -> None:
    policy = Bad(**{hook: make})
    with null_engine("p0", "p1", policy=policy) as engine:
        futures = [engine.submit("m", FEED) for _ in range(3)]
        for future in futures:
            error = future.exception(WAIT_S)
            assert error is None or isinstance(error, PolicyError), repr(error)
        assert engine.drain(WAIT_S)
        assert engine.fault is None or isinstance(engine.fault, PolicyError)


@pytest.mark.parametrize(
    "decide",
    [
        lambda view, request: None,
        lambda view, request: 1,
        lambda view, request: [None],
        lambda view, request: [Start("p0", None)],
        lambda view, request: [Start("p0", ())],
        lambda view, request: [Start("p0", [request])],
        lambda view, request: [Start([], (request,))],
        lambda view, request: [Start("p0", (None,))],
        lambda view, request: [Start("p0", (request,), "x")],
        lambda view, request: [Start("p0", (request,), 7)],
        lambda view, request: [Start("p0", (request._replace(model="n"),))],
        lambda view, request: [Start("p0", (request, request))],
        lambda view, request: [Start("p0", (request,)), Start("p0", (request,))],
        lambda view, request: [WaitUntil("x")],
        lambda view, request: [WaitUntil(math.nan)],
        lambda view, request: [WaitUntil(-1.0)],
    ],
    ids=range(16),
)
def test_decisions_that_are_none_answer_everybody(decide: Callable[..., Any]) -> None:
    class Deciding(Policy):
        def decide(self, view):
            return decide(view, next(iter(view.by_arrival())))

    with null_engine("p0", "p1", policy=Deciding()) as engine:
        futures = [engine.submit("m", FEED) for _ in range(3)]
        for future in futures:
            error = future.exception(WAIT_S)
            assert error is None or isinstance(error, PolicyError), repr(error)
        assert engine.drain(WAIT_S)


def test_a_policy_that_ends_its_thread_answers_everybody() -> None:
    with null_engine(policy=Bad(pick=raising(SystemExit(3)))) as engine:
        assert "SystemExit" in str(engine.submit("m", FEED).exception(WAIT_S))
        assert engine.drain(WAIT_S)
