"""Fixtures of the command line's tests: one profile cache for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.program import Program


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def program(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    cache_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Program]:
    monkeypatch.setenv("COINFER_CACHE", str(cache_folder))
    monkeypatch.delenv("COLUMNS", raising=False)
    return Program(capsys, tmp_path)
