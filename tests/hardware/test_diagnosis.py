"""The diagnosis finds each conflict and says what to do; a sound machine has no errors."""

from __future__ import annotations

import json

import pytest

from coinfer.backends import Availability
from coinfer.hardware import Cores, diagnosis
from coinfer.hardware.diagnosis import Finding, Severity, diagnose


def findings_with(text: str) -> list[Finding]:
    return [finding for finding in diagnose().findings if text in finding.text]


def test_this_machine_can_run_models() -> None:
    assert diagnose().usable


def test_it_survives_json() -> None:
    found = diagnose().to_json()
    assert json.loads(json.dumps(found)) == found
    assert "cpu0" in found["processors"]
    assert found["backends"]["onnxruntime"]["devices"][0]["name"] == "CPU"


def test_two_onnxruntime_wheels_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = ("onnxruntime", "onnxruntime-gpu")
    monkeypatch.setattr(diagnosis, "onnxruntime_wheels", lambda: wheels)
    (finding,) = findings_with("onnxruntime and onnxruntime-gpu")
    assert finding.severity is Severity.WARNING
    assert "pip uninstall onnxruntime onnxruntime-gpu" in finding.remedy


def test_a_thread_variable_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    (finding,) = findings_with("OMP_NUM_THREADS=7")
    assert finding.severity is Severity.WARNING
    assert finding.remedy == "unset OMP_NUM_THREADS"


def test_a_missing_backend_is_a_note_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = "not installed; install it: pip install 'coinfer[openvino]'"
    known = (
        *(each for each in diagnosis.available() if each.name != "openvino"),
        Availability(name="openvino", backend=None, problem=problem),
    )
    monkeypatch.setattr(diagnosis, "available", lambda: known)
    (finding,) = findings_with("coinfer[openvino]")
    assert finding.severity is Severity.NOTE


def test_without_any_backend_nothing_is_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    null = tuple(each for each in diagnosis.available() if each.name == "null")
    monkeypatch.setattr(diagnosis, "available", lambda: null)
    found = diagnose()
    assert not found.usable
    assert found.findings[0].severity is Severity.ERROR
    assert "pip install onnxruntime" in found.findings[0].remedy


def test_a_quota_below_the_cores_is_a_note_and_not_a_failure_to_pin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limited = Cores(numbers=(0,), host=8, allowed=4, physical=4, quota=1.5, pinnable=False)
    monkeypatch.setattr(diagnosis, "find_cores", lambda: limited)
    monkeypatch.setattr(diagnosis, "can_pin", lambda _cores: False)
    assert [f.severity for f in findings_with("quota of 1.5")] == [Severity.NOTE]
    assert findings_with("cannot be pinned") == []


def test_pinning_that_fails_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "can_pin", lambda _cores: False)
    assert [f.severity for f in findings_with("cannot be pinned")] == [Severity.NOTE]


def test_a_missing_extra_is_a_note_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "find_spec", lambda _module: None)
    assert [f.remedy for f in findings_with("PIL")] == ["pip install 'coinfer[images]'"]
