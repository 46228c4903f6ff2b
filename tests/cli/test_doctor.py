"""`coinfer doctor` shows the diagnosis as tables or as JSON and fails if nothing can run."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import typer
from typer.testing import CliRunner, Result

from coinfer.cli import doctor as verb
from coinfer.hardware.diagnosis import Finding, Severity, diagnose


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
