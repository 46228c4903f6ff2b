"""The cache is where the system's rules say, and everything that keeps something asks there."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

import coinfer
from coinfer.cache_folder import cache_folder
from coinfer.errors import ConfigurationError
from coinfer.profiling import default_cache

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="these are the rules of XDG")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("COINFER_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def no_such_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose user is only a number."""

    def unknown(_number: int) -> None:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr("pwd.getpwuid", unknown)


def test_it_is_below_home(home: Path) -> None:
    assert cache_folder() == home / ".cache" / "coinfer"


def test_an_absolute_xdg_folder_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "coinfer"


@pytest.mark.parametrize("value", ["", "relative/cache", ".", "~/cache"])
def test_an_xdg_folder_that_is_not_absolute_is_ignored(
    home: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    assert cache_folder() == home / ".cache" / "coinfer"


@pytest.mark.parametrize("value", [None, "", "relative"])
def test_without_a_usable_home_the_systems_own_record_counts(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    import pwd

    recorded = Path(pwd.getpwuid(os.getuid()).pw_dir)
    if value is None:
        monkeypatch.delenv("HOME")
    else:
        monkeypatch.setenv("HOME", value)
    assert cache_folder() == recorded / ".cache" / "coinfer"


@pytest.mark.parametrize("value", [None, "", "relative"])
def test_without_any_home_it_is_a_private_folder_among_the_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is None:
        monkeypatch.delenv("HOME")
    else:
        monkeypatch.setenv("HOME", value)
    no_such_user(monkeypatch)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = cache_folder()
    assert found.parent == tmp_path
    assert found.stat().st_mode & 0o777 == 0o700
    assert cache_folder() == found


def test_a_temporary_folder_that_others_may_write_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOME")
    no_such_user(monkeypatch)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cache_folder().chmod(0o777)
    with pytest.raises(ConfigurationError, match="COINFER_CACHE"):
        cache_folder()


def test_the_variable_goes_before_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("COINFER_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    assert default_cache().folder == tmp_path / "own" / "profiles"


def test_nothing_else_looks_for_the_folder() -> None:
    [package] = coinfer.__path__
    asks = re.compile(r"XDG_CACHE_HOME|Path\.home\(|platformdirs|LOCALAPPDATA|\"\.cache\"")
    found = [p.name for p in Path(package).rglob("*.py") if asks.search(p.read_text())]
    assert found == ["cache_folder.py"]
