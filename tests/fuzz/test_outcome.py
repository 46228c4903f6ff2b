"""What of a process is a fault."""

from __future__ import annotations

import pytest

from fuzz.outcome import MEMORY_BYTES, Outcome

TRACEBACK = """Traceback (most recent call last):
  File "/a/src/coinfer/graph/macs.py", line 3, in count
    x()
  File "/b/numpy/core.py", line 9, in inner
ValueError: too large
"""


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        (Outcome(status=0, out="fine"), "success"),
        (Outcome(status=2, err="coinfer: error: m.onnx: broken\n"), "error"),
        (Outcome(status=1, out="differs: step 3\n"), "error"),
        (Outcome(status=1, out="5afd removed: another size\n3 checked, 1 removed\n"), "error"),
        (Outcome(status=1, out="3 checked, 0 removed\n"), "fault"),
        (Outcome(status=130, err="coinfer: interrupted\n", interrupted=True), "stopped"),
        (Outcome(status=-2, interrupted=True), "stopped"),
        (Outcome(status=-2, err="coinfer: error: m.onnx: broken\n", interrupted=True), "stopped"),
        (Outcome(status=-2, err=TRACEBACK, interrupted=True), "fault"),
        (Outcome(status=-2), "fault"),
        (Outcome(status=2), "fault"),
        (Outcome(status=2, err="coinfer: error: a\ncoinfer: error: b\n"), "fault"),
        (Outcome(status=2, err="coinfer: error: \x1b[31m\n"), "fault"),
        (Outcome(status=2, err=f"coinfer: error: {'a' * 5000}\n"), "fault"),
        (Outcome(status=70, err="coinfer: internal error\n"), "fault"),
        (Outcome(status=-11), "fault"),
        (Outcome(status=0, hung=True), "fault"),
        (Outcome(status=0, peak_bytes=MEMORY_BYTES + 1), "fault"),
        (Outcome(status=0, outside=("/etc/x",)), "fault"),
        (Outcome(status=0, err=TRACEBACK), "fault"),
    ],
)
def test_verdicts(outcome: Outcome, verdict: str) -> None:
    assert outcome.verdict == verdict


@pytest.mark.parametrize("where", ["err", "details"])
def test_a_fault_is_named_by_what_was_raised_and_where(where: str) -> None:
    outcome = Outcome(status=1, **{where: TRACEBACK})
    assert outcome.fault == "ValueError at coinfer/graph/macs.py:count"
