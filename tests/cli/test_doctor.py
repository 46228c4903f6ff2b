"""`coinfer doctor` shows the diagnosis as tables or as JSON and fails if nothing can run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from coinfer.cli import doctor as verb
from coinfer.hardware import default_processors, find_cores
from coinfer.hardware.diagnosis import Finding, Severity, diagnose
from coinfer.machine.machine_json import decode_machine
from hardware import fake_machines


def invoke(*arguments: str) -> Result:
    app = typer.Typer()
    app.command()(verb.doctor)
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


def test_it_shows_machine_backends_and_processors() -> None:
    result = invoke()
    assert result.exit_code == 0
    for text in ("cores used", "pinning", "onnxruntime", "Default processors", "cpu0"):
        assert text in result.stdout


def test_json_is_one_document_with_the_same_content() -> None:
    found = json.loads(invoke("--json").stdout)
    assert found["usable"]
    assert found["environment"]["cores"]["used"]
    assert "cpu0" in found["processors"]


def test_remedies_keep_their_brackets_and_errors_set_the_exit_status(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    finding = Finding(
        severity=Severity.ERROR, text="nothing runs", remedy="pip install 'coinfer[openvino]'"
    )
    found = replace(diagnose(), findings=(finding,))
    monkeypatch.setattr(verb, "diagnose", lambda: found)
    result = invoke()
    assert result.exit_code == 1
    assert "error: nothing runs; pip install 'coinfer[openvino]'" in result.stdout


def test_a_machine_without_findings_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = replace(diagnose(), findings=())
    monkeypatch.setattr(verb, "diagnose", lambda: sound)
    assert "Nothing to mend." in invoke().stdout


def test_a_compiled_build_is_called_so(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = diagnose()
    compiled = replace(plain, environment={**plain.environment, "compiled": True})
    monkeypatch.setattr(verb, "diagnose", lambda: compiled)
    assert ", compiled, on Python" in invoke().stdout


def test_memory_that_is_not_known_is_called_so(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = diagnose()
    unknown = replace(plain, environment={**plain.environment, "memory_bytes": None})
    monkeypatch.setattr(verb, "diagnose", lambda: unknown)
    assert "not known" in invoke().stdout
    assert json.loads(invoke("--json").stdout)["environment"]["memory_bytes"] is None


def test_the_machine_is_handed_on_as_json() -> None:
    machine = decode_machine(json.loads(invoke("--machine-json").stdout))
    assert machine.topology == find_cores().topology
    assert "cpu0" in [processor.name for processor in machine.processors]


@pytest.mark.parametrize(
    ("fake", "threads", "lines"),
    [
        (
            fake_machines.desktop,
            32,
            [
                "last-level cache: 8 cores of 2 hardware threads, 0-7; used: 0-7",
                "last-level cache: 8 cores of 2 hardware threads, 8-15; used: 8-15",
                "cpu0 ... cpu15 (16)",
            ],
        ),
        (
            fake_machines.laptop,
            20,
            ["6 performance cores of 2", "8 efficiency cores, 12-19; used: 12-19"],
        ),
        (fake_machines.server, 64, ["NUMA node 0", "NUMA node 1", "cpu0-31 ... cpu32-63 (2)"]),
        (fake_machines.container, 8, ["8 cores, 0-7; used: 0-2", "quota 3.5"]),
    ],
)
def test_it_draws_the_cores_of_any_machine(
    fake: Callable[[Path], Path],
    threads: int,
    lines: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cores = find_cores(root=fake(tmp_path), affinity=range(threads))
    found = replace(
        diagnose(), cores=cores, processors=default_processors(["onnxruntime"], cores=cores)
    )
    monkeypatch.setattr(verb, "diagnose", lambda: found)
    shown = invoke().stdout
    assert [line for line in lines if line not in shown] == []
