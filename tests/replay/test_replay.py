"""A recorded run, real or simulated, leads to the same commands again."""

from __future__ import annotations

import errno
import gzip
import io
import json
import math
import random
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from coinfer.backends.null import Faults
from coinfer.core.commands import Command, Execution, Run
from coinfer.core.dispatcher import Dispatcher, Limits
from coinfer.core.events import (
    Arrived,
    Event,
    Finished,
    ModelLoaded,
    PolicyChanged,
    TimerFired,
)
from coinfer.core.request import Request
from coinfer.errors import ConfigurationError, UnknownNameError
from coinfer.machine.profile import Profile
from coinfer.plan import Plan
from coinfer.policies import make_policy, policy_names
from coinfer.replay import EventLog, LogHeader, Replayed, recording, replay
from coinfer.sim import simulate
from core.compiled import only_plain
from runtime.engines import FEED, MODEL, cpus, null_engine
from sim.machines import machine, scenario

OPTIONS: dict[str, dict[str, Any]] = {"fixed": {"assignment": {"m": "p0", "n": "p1"}}}
NO_LIMIT = Limits(max_waiting=10**6)
LIMIT_20 = Limits(max_waiting=20)
LIMITS = Limits(max_waiting=150, hang_min_s=0.05, hang_factor=2.0)


def header(policy: str, **fields: Any) -> LogHeader:
    fields.setdefault("processors", cpus("p0", "p1"))
    return LogHeader(policy=policy, options=OPTIONS.get(policy, {}), **fields)


def turbulent_run(path: Path, policy: str) -> None:
    """Several threads submit; runs fail and hang, requests are cancelled, dropped, rejected."""
    faults = Faults()
    faults.fail(times=4)
    with (
        recording(path, header(policy, limits=LIMITS)) as log,
        null_engine(
            "p0",
            "p1",
            faults=faults,
            models={"m": MODEL, "n": MODEL},
            service_s=0.0003,
            policy=make_policy(policy, **OPTIONS.get(policy, {})),
            limits=LIMITS,
            observer=log,
        ) as engine,
    ):

        def submit(name: str, on_late: str) -> None:
            for number in range(60):
                deadline_s = 1e-9 if on_late == "drop" and number % 3 == 0 else 10.0
                future = engine.submit(
                    name, FEED, deadline_s=deadline_s, on_late=on_late, priority=number % 3
                )
                if number % 5 == 0:
                    future.cancel()

        threads = [
            threading.Thread(target=submit, args=(name, on_late))
            for name in "mn"
            for on_late in ("run", "drop")
        ]
        for thread in threads:
            thread.start()
        engine.change_policy("sjf", patience_s=0.5)
        engine.change_policy(policy, **OPTIONS.get(policy, {}))
        for thread in threads:
            thread.join()
        engine.drain(10.0)
        faults.hang(processor="p0")
        late = engine.submit("m", FEED)
        if faults.wait_until_hanging(timeout_s=0.2):
            engine.drain(10.0)  # the watchdog gives it up
        faults.release()
        late.exception(timeout=10.0)
        engine.load("o", MODEL, Profile.from_seconds({"o": {"p0": 1e-4, "p1": 1e-4}}))
        engine.unload("n")


def steps(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()[1:]]


def assert_identical(done: Replayed) -> None:
    assert done.difference is None, str(done.difference)


@pytest.mark.parametrize("policy", policy_names())
def test_a_threaded_run_with_faults_replays_identically(policy: str, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    turbulent_run(path, policy)
    assert_identical(replay(path))
    events = Counter(step[1][0] for step in steps(path))
    outcomes = Counter(c[2] for step in steps(path) for c in step[2] if c[0] == "Reply")
    arrivals = events["Arrived"] + events["ArrivedTogether"]
    assert arrivals == 4 * 60 + 1
    assert events.keys() >= {"ModelLoaded", "ModelUnloaded", "Finished", "Failed", "Cancelled"}
    assert events["PolicyChanged"] == 2
    assert outcomes.total() == arrivals
    assert outcomes.keys() >= {"completed", "dropped", "cancelled"}


@pytest.mark.parametrize("policy", policy_names())
def test_a_simulation_replays_identically(policy: str, tmp_path: Path) -> None:
    board = machine(
        {"m": {"p0": 0.01, "p1": 0.03}, "n": {"p0": 0.05, "p1": 0.02}},
        spreads={("m", "p0"): 0.5, ("n", "p1"): 1.0},
    )
    arrivals = {"m": {"poisson": 60}, "n": {"poisson": 30}}
    wanted = scenario(arrivals, duration=3.0, admission_limit=20)
    path = tmp_path / "sim.jsonl.gz"
    with recording(path, header(policy, processors=board.processors, limits=LIMIT_20)) as log:
        chosen = make_policy(policy, **OPTIONS.get(policy, {}))
        done = simulate(wanted, Plan.of(board), chosen, observer=log)
    found = replay(path)
    assert_identical(found)
    assert found.header.policy == policy
    assert found.steps > 2 * sum(t.completed for t in done.run_counts.models.values()) > 100


@pytest.mark.parametrize("later", policy_names())
def test_a_run_whose_policy_changes_replays_identically(later: str, tmp_path: Path) -> None:
    path, options = tmp_path / "run.jsonl", OPTIONS.get(later, {})
    with recording(path, header("earliest_finish", limits=NO_LIMIT)) as log:
        seconds = {"m": {"p0": 0.01, "p1": 0.03}, "n": {"p0": 0.05, "p1": 0.02}}
        core = Dispatcher(cpus("p0", "p1"), make_policy("earliest_finish"), limits=NO_LIMIT)
        machine = Recorded(core, log)
        machine.load(seconds)
        machine.arrive(30)
        machine.post(PolicyChanged(make_policy(later, **options), later, options))
        machine.arrive(30)
        machine.end_all()
    assert_identical(replay(path))
    assert [step[1] for step in steps(path) if step[1][0] == "PolicyChanged"] == [
        ["PolicyChanged", later, options]
    ]


class Recorded:
    """A dispatcher that is driven by hand, with a log."""

    def __init__(self, core: Dispatcher, log: EventLog) -> None:
        self.core, self.log, self.now, self.n = core, log, 0.0, 0
        self.running: list[Execution] = []

    def post(self, event: Event) -> None:
        commands = self.core.handle(event, self.now)
        self.log.observe(event, commands, self.now)
        self.core.check()
        self.running += [each.execution for each in commands if isinstance(each, Run)]

    def load(self, seconds: dict[str, dict[str, float]]) -> None:
        for model, row in seconds.items():
            self.post(ModelLoaded(model, 1, Profile.from_seconds({model: row})))

    def arrive(self, count: int) -> None:
        for _ in range(count):
            self.now += 0.005
            deadline_s = self.now + 0.1 if self.n % 3 else math.inf
            self.post(Arrived(Request(self.n, "mn"[self.n % 2], self.now, deadline_s, self.n % 4)))
            self.n += 1
            if self.n % 4 == 0:
                self.end_one()

    def end_one(self) -> None:
        execution = self.running.pop(0)
        self.post(Finished(execution.id, 0.01))

    def end_all(self) -> None:
        while self.running:
            self.now += 0.01
            self.end_one()
        assert not self.core.n_unanswered


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.jsonl"
    board = machine({"m": {"p0": 0.01, "p1": 0.03}})
    with recording(path, header("fcfs", processors=board.processors, limits=NO_LIMIT)) as observer:
        wanted = scenario({"m": {"periodic": 150}}, duration=0.2)
        simulate(wanted, Plan.of(board), make_policy("fcfs"), observer=observer)
    return path


def changed(log: Path, at: int, old: str, new: str) -> Path:
    lines = log.read_text().splitlines()
    assert old in lines[at], lines[at]
    lines[at] = lines[at].replace(old, new)
    log.write_text("\n".join(lines) + "\n")
    return log


def test_the_first_difference_is_named_with_both_lists_of_commands(log: Path) -> None:
    at = next(i for i, step in enumerate(steps(log), 1) if any(c[0] == "Run" for c in step[2]))
    found = replay(changed(log, at, '"p0"', '"p1"'))
    assert found.difference is not None
    assert found.steps == found.difference.step == at
    assert found.difference.recorded != found.difference.replayed
    text = str(found.difference)
    assert text.startswith(f"step {at} at 0.0 s (Arrived): recorded [[")
    assert '"p1"' in text.partition(", replayed ")[0]
    assert '"p0"' in text.partition(", replayed ")[2]
    assert "\n" not in text


def test_another_policy_would_command_something_else(log: Path) -> None:
    # Otherwise equal commands would prove nothing.
    found = replay(changed(log, 0, '"fcfs"', '"earliest_finish"'))
    assert found.difference is not None


def test_a_time_that_differs_in_its_last_bit_is_a_difference(log: Path) -> None:
    run = next(c for step in steps(log) for c in step[2] if c[0] == "Run")
    assert run[7] == 0.01
    at = next(i for i, step in enumerate(steps(log), 1) if run in step[2])
    found = replay(changed(log, at, ",0.01]", ",0.010000000000000002]"))
    assert found.difference is not None


def test_what_a_crash_leaves_behind_is_replayed_up_to_there(log: Path) -> None:
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:10]))
    assert replay(log).steps == 9
    log.write_text("".join(lines[:10]) + lines[10][:20])
    with pytest.raises(ConfigurationError, match=r"log\.jsonl:11"):
        replay(log)


def test_a_compressed_log_that_was_cut_off_is_an_error_that_names_it(
    log: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(log.read_bytes())[:-40])
    with pytest.raises(ConfigurationError, match=r"cut\.jsonl\.gz"):
        replay(cut)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("not json\n", r"log\.jsonl:1"),
        ("{}\n", "not a log of format"),
        ('{"format": "coinfer-log/0"}\n', "not a log of format coinfer-log/1"),
        ('{"format": "coinfer-log/1"}\n', "damaged header"),
    ],
)
def test_what_is_no_log_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        replay(path)


def test_a_missing_file_and_a_policy_that_is_not_installed_are_named(
    log: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.jsonl"):
        replay(tmp_path / "none.jsonl")
    with (
        pytest.raises(ConfigurationError, match="nowhere"),
        recording(tmp_path / "nowhere" / "log.jsonl", header("fcfs")),
    ):
        pass
    with pytest.raises(UnknownNameError, match=r"\.jsonl:1: unknown policy 'fcfz'"):
        replay(changed(log, 0, '"fcfs"', '"fcfz"'))


def test_a_later_policy_that_is_not_installed_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with (
        recording(path, header("fcfs")) as written,
        null_engine("p0", "p1", policy="fcfs", observer=written) as engine,
    ):
        engine.change_policy("edf")
    at = next(n for n, step in enumerate(steps(path), 2) if step[1][0] == "PolicyChanged")
    with pytest.raises(UnknownNameError, match=rf"\.jsonl:{at}: unknown policy 'edg'"):
        replay(changed(path, at - 1, '"edf"', '"edg"'))


class FullDisk(io.StringIO):
    """Takes one line."""

    def write(self, text: str) -> int:
        if self.tell():
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(text)


def test_a_run_outlives_its_log() -> None:
    full = FullDisk()
    log = EventLog(full, header("fcfs"))
    for _ in range(2):
        log.observe(TimerFired(), [], 0.0)
    assert log.problem == "No space left on device"
    assert full.getvalue().count("\n") == 1
    log.close()
    log.observe(TimerFired(), [], 0.0)


def test_header_options_survive(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    made = LogHeader(
        policy="sjf",
        options={"patience_s": float("inf")},
        processors=cpus("p0"),
        limits=Limits(hang_min_s=float("inf"), max_waiting=3),
        scenario="one",
    )
    with recording(path, made):
        pass
    found = replay(path)
    assert found.steps == 0
    assert found.header.limits == made.limits
    assert (found.header.scenario, found.header.processors) == ("one", made.processors)


WRONG_VALUES = (None, True, -1, 2**70, 0.5, float("nan"), float("inf"), "text", "", [], {}, [[]])


def places(value: Any) -> list[tuple[Any, Any]]:
    """List all containers in a JSON value with each of their keys."""
    found: list[tuple[Any, Any]] = []
    keys = value.keys() if isinstance(value, dict) else range(len(value))
    for key in keys:
        found.append((value, key))
        if isinstance(value[key], dict | list):
            found += places(value[key])
    return found


@pytest.mark.parametrize("seed", range(8))
def test_a_log_with_anything_in_it_is_replayed_or_refused_with_its_line(
    log: Path, seed: int
) -> None:
    chance, lines = random.Random(seed), log.read_text().splitlines()
    path = log.with_name("damaged.jsonl")
    said = []
    for _ in range(60):
        at = chance.choice((0, 1, 2, chance.randrange(len(lines))))
        value = json.loads(lines[at])
        container, key = chance.choice(places(value))
        if chance.random() < 0.3:
            del container[key]
        else:
            container[key] = chance.choice(WRONG_VALUES)
        path.write_text("\n".join([*lines[:at], json.dumps(value), *lines[at + 1 :]]))
        try:
            replay(path)
        except UnknownNameError:
            continue
        except ConfigurationError as error:
            said.append(str(error))
    assert len(said) > 10
    assert all("damaged.jsonl:" in text and "\n" not in text for text in said), said


@pytest.mark.parametrize("damage", [b"", b"\x00" * 99, b"[" * 99_999, b"\xff\xfe", b"1" * 9999])
def test_a_line_that_is_no_step_is_named(log: Path, damage: bytes) -> None:
    lines = log.read_bytes().splitlines()
    log.write_bytes(b"\n".join([*lines[:3], damage or b"[]", *lines[3:]]))
    with pytest.raises(ConfigurationError, match=r"log\.jsonl"):
        replay(log)


@pytest.mark.parametrize("at", [0, 20, 60, -30])
def test_a_compressed_log_with_a_wrong_byte_is_named(log: Path, tmp_path: Path, at: int) -> None:
    data = bytearray(gzip.compress(log.read_bytes(), mtime=0))
    for index in range(at, at + 4):
        data[index] ^= 0xFF
    (tmp_path / "wrong.jsonl.gz").write_bytes(data)
    with pytest.raises(ConfigurationError, match=r"wrong\.jsonl\.gz"):
        replay(tmp_path / "wrong.jsonl.gz")


@only_plain
def test_what_the_core_cannot_take_is_refused_with_its_line(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Choosy(Dispatcher):
        def handle(self, event: Event, now: float) -> list[Command]:
            if isinstance(event, Finished):
                raise KeyError(event.execution_id)
            return super().handle(event, now)

    monkeypatch.setattr(sys.modules["coinfer.replay.replay"], "Dispatcher", Choosy)
    at = next(i for i, step in enumerate(steps(log), 2) if step[1][0] == "Finished")
    with pytest.raises(ConfigurationError, match=rf"log\.jsonl:{at}: Finished cannot be replayed"):
        replay(log)
