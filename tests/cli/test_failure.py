"""Whatever a verb raises, the user sees a line or two, and a bug leaves its details in a file."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from cli.program import Program
from coinfer.cli.failure import BUG, Failure
from coinfer.errors import BackendError, InvariantError, ModelError


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch):
    """Let every verb that loads a model raise something."""

    def let(error: BaseException) -> None:
        def broken(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr("coinfer.cli.inspect.resolve_model", broken)

    return let


class Panic(BaseException):
    """What a library in Rust raises is no Exception."""


def broken_deep_down() -> KeyError:
    try:
        raise ValueError("the cause")
    except ValueError as cause:
        error = KeyError("a\nb")
        error.__cause__ = cause
        return error


@pytest.mark.parametrize(
    ("error", "status", "parts"),
    [
        (ModelError("no\nsuch file"), 2, ["error: no such file"]),
        (BackendError("cannot load"), 1, ["error: cannot load"]),
        (MemoryError(), 1, ["error: out of memory"]),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x"), 1, ["/data/x: No space"]),
        (PermissionError(errno.EACCES, "Permission denied", b"/x\xff"), 1, ["Permission denied"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_may_happen_is_said_in_one_line(
    program: Program, raising, error: BaseException, status: int, parts: list[str]
) -> None:
    raising(error)
    outcome = program("inspect", "zoo:tiny_mlp")
    assert outcome.status == status
    assert all(part in outcome.complaint for part in parts)


@pytest.mark.parametrize(
    "error",
    [broken_deep_down(), RecursionError("maximum depth"), Panic("panicked"), OSError("odd"),
     InvariantError("a unit runs twice"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
     ValueError("x" * 10_000), AssertionError()],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_a_bug_is_said_in_two_lines_and_its_details_are_in_a_file(
    program: Program, raising, error: BaseException, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("COINFER_CACHE", str(tmp_path / "cache"))
    raising(error)
    outcome = program("inspect", "zoo:tiny_mlp")
    assert (outcome.status, outcome.out) == (BUG, "")
    what, where = outcome.err.splitlines()
    assert what.startswith(f"coinfer: internal error: {type(error).__name__}")
    assert len(what) < 600
    assert where.startswith("coinfer: this is a bug in coinfer; please report it")
    details = Path(re.search(r"\S+\.txt", where)[0])
    assert details.parent == tmp_path / "cache" / "failures"
    text = details.read_text()
    assert "Traceback" in text
    assert "onnxruntime " in text
    if error.__cause__ is not None:
        assert "the cause" in text


def test_where_the_cache_cannot_be_written_the_details_are_a_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("not a folder")
    monkeypatch.setenv("COINFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    [_, where] = Failure.of(KeyError("x")).lines
    details = Path(re.search(r"\S+\.txt", where)[0])
    assert details.parent == tmp_path
    assert "KeyError" in details.read_text()


def test_where_nothing_can_be_written_it_still_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COINFER_CACHE", "/dev/null/x")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    lines, status = Failure.of(KeyError("x"))
    assert status == BUG
    assert lines[0] == "internal error: KeyError: 'x'"
    assert ".txt" not in lines[1]


def test_an_interrupt_that_a_library_turned_into_another_error_is_an_interrupt(
    raising, capsys: pytest.CaptureFixture[str]
) -> None:
    from coinfer.cli import main

    raising(ImportError("numpy._core.multiarray failed to import"))
    with pytest.raises(SystemExit) as exit_:
        main(["inspect", "zoo:tiny_mlp"], was_interrupted=lambda: True)
    assert exit_.value.code == 130
    assert capsys.readouterr().err == "coinfer: interrupted\n"
