"""A child process makes what it is told with the modules of its parent, and no others."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from coinfer.artefacts import MakeError
from coinfer.artefacts.child import answer_of


def test_nothing_is_imported_from_the_folder_in_which_it_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "importlib", "pickle", "coinfer"):
        (tmp_path / f"{name}.py").write_text(f"open('{name}.ran', 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    with pytest.raises(MakeError, match="no_such_module"):
        answer_of("coinfer.no_such_module", None, 60.0)
    assert not list(tmp_path.glob("*.ran"))


def test_one_that_takes_too_long_is_ended() -> None:
    with pytest.raises(MakeError, match=r"within 0\.01 s"):
        answer_of("coinfer.backends.artefact_child", b"x" * 2**24, 0.01)


def test_an_order_that_cannot_be_told_is_said() -> None:
    with pytest.raises(MakeError, match="cannot"):
        answer_of("coinfer.backends.artefact_child", (lambda: None, sys.stdin), 60.0)
