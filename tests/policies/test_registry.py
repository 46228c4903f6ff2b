from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, EntryPoints
from typing import ClassVar

import pytest

from coinfer.core.lane import Lane
from coinfer.core.policy import Policy, Start
from coinfer.core.request import Outcome, Request
from coinfer.core.view import View
from coinfer.errors import ConfigurationError, UnknownNameError
from coinfer.policies import make_policy, policy_names, registry
from coinfer.testing.machine import VirtualMachine, processors


@dataclass(kw_only=True)
class LastComeFirstServed(Policy):
    """A third party's policy."""

    eagerness: float = 1.0

    def rank(self, request: Request) -> float:
        return -request.arrival_s

    def decide(self, view: View) -> Iterator[Start]:
        while found := view.first_startable():
            lane, able = found
            yield Start(able[0], (lane.head,))


class Diary:
    """Of no type that pydantic knows."""


@dataclass(kw_only=True)
class KeepsADiary(LastComeFirstServed):
    """A policy with private state of a class of its own."""

    __pydantic_config__: ClassVar[Mapping[str, bool]] = {"arbitrary_types_allowed": True}

    patience: int
    _diary: Diary = field(default_factory=Diary, init=False)


@dataclass(kw_only=True)
class HidesADiary(LastComeFirstServed):
    """The same without saying so."""

    _diary: Diary = field(default_factory=Diary, init=False)


class NoPolicy:
    def rank(self, request: Request) -> float:
        return request.arrival_s

    def decide(self, view: View) -> list[Start]:
        return []


class DecidesNothing(Policy):
    pass


class NotADataclass(Policy):
    def __init__(self, eagerness: float = 1.0) -> None:
        self.eagerness = eagerness

    def pick(self, view: View) -> tuple[Lane, str] | None:
        return None


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    points = EntryPoints(
        EntryPoint(name, f"{__name__}:{cls}", "coinfer.policies")
        for name, cls in {
            "lcfs": "LastComeFirstServed",
            "plain": "NotADataclass",
            "diary": "KeepsADiary",
            "hidden": "HidesADiary",
            "broken": "Missing",
            "no_policy": "NoPolicy",
            "idler": "DecidesNothing",
        }.items()
    )
    monkeypatch.setattr(registry, "entry_points", lambda **which: points.select(**which))


def test_every_built_in_policy_can_be_made() -> None:
    needs = {"fixed": {"assignment": {"m": "p"}}}
    for name in policy_names():
        policy = make_policy(name, **needs.get(name, {}))
        assert make_policy(name, **needs.get(name, {})) is not policy


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown policy 'fcsf'\. Did you mean 'fcfs'\?"):
        make_policy("fcsf")


def test_an_unknown_name_is_told_of_auto_too() -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean 'auto'\? Known: affinity, auto, "):
        make_policy("autto")


def test_an_unknown_option_gets_a_suggestion() -> None:
    with pytest.raises(UnknownNameError, match=r"option of policy 'sjf' 'patience'\. Did you"):
        make_policy("sjf", patience=1.0)


def test_private_state_is_no_option() -> None:
    with pytest.raises(UnknownNameError):
        make_policy("affinity", assignment={})


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("sjf", {"patience_s": "soon"}, "policy 'sjf': option 'patience_s': .*number"),
        ("priority", {"table": {"p": {"m": "first"}}}, "option 'table.p.m'"),
        ("fixed", {}, "policy 'fixed': option 'assignment': is required"),
        ("sjf", {"patience_s": -1}, "patience_s must not be negative"),
        ("edf", {"patience_s": float("nan")}, "patience_s must not be negative"),
        ("priority", {"ageing_s": 0}, "ageing_s must be above 0"),
        ("earliest_finish", {"window": 0}, "window must be at least 1"),
        ("earliest_finish", {"boost_s": False}, "option 'boost_s': expected a number, got False"),
        ("earliest_finish", {"window": True}, "option 'window': expected a number, got True"),
    ],
)
def test_a_bad_option_is_named(name: str, options: dict, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        make_policy(name, **options)


def test_options_are_read_as_a_scenario_writes_them() -> None:
    assert make_policy("earliest_finish", window="8").window == 8


@pytest.mark.usefixtures("installed")
class TestThirdParty:
    def test_a_policy_of_another_package_is_found_by_its_entry_point(self) -> None:
        assert "lcfs" in policy_names()
        machine = VirtualMachine(
            processors("p"), make_policy("lcfs", eagerness=2), {"m": {"p": 0.1}}
        )
        for at in range(3):
            machine.submit("m", arrival_s=0.01 * at)
        machine.run()
        assert [e.requests[0].id for e in machine.executions] == [0, 2, 1]
        assert set(machine.outcomes().values()) == {Outcome.COMPLETED}

    def test_its_options_are_checked_too(self) -> None:
        with pytest.raises(ConfigurationError, match="policy 'lcfs': option 'eagerness'"):
            make_policy("lcfs", eagerness="very")

    @pytest.mark.parametrize(
        ("name", "remedy"),
        [
            ("no_policy", r"NoPolicy does not inherit from .*; write `class NoPolicy\(Policy\)`"),
            ("idler", "DecidesNothing overrides neither pick nor decide; add one"),
        ],
    )
    def test_a_class_that_is_no_policy_is_refused_with_the_remedy(
        self, name: str, remedy: str
    ) -> None:
        with pytest.raises(ConfigurationError, match=remedy):
            make_policy(name)

    def test_its_private_state_may_be_of_any_type(self) -> None:
        assert isinstance(make_policy("diary", patience="3")._diary, Diary)

    def test_one_that_does_not_say_so_is_told_how(self) -> None:
        with pytest.raises(ConfigurationError, match=r"'hidden'.*Diary.*arbitrary_types_allowed"):
            make_policy("hidden")

    def test_an_option_that_is_left_out_is_named(self) -> None:
        with pytest.raises(ConfigurationError, match=r"'diary': option 'patience': is required"):
            make_policy("diary")

    def test_a_class_that_is_no_dataclass_gets_its_options_as_they_are(self) -> None:
        assert make_policy("plain", eagerness=3).eagerness == 3
        with pytest.raises(ConfigurationError, match=r"policy 'plain': .*eager"):
            make_policy("plain", eager=3)

    def test_one_that_does_not_load_is_named(self) -> None:
        with pytest.raises(ConfigurationError, match="policy 'broken' is registered as"):
            make_policy("broken")

    def test_the_built_in_ones_are_still_there(self) -> None:
        assert make_policy("fcfs").rank is not None
