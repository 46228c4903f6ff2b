"""Whatever became of the cache's files: it is measured again, with one warning."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from coinfer.machine.profile import Measurement
from coinfer.model import load_model
from coinfer.profiling import ProfileCache, cache
from coinfer.profiling.agreement import Agreement, keep, kept
from coinfer.profiling.fingerprints import fingerprint_of
from coinfer.testing.models import tiny_linear

PARTS = {"model": "m"}
MEASURED = Measurement(seconds=(0.25,), error=0.5)
AGREED = Agreement(error=0.5, why="because")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def unreadable(path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    path.chmod(0)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_fifo(path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("there are no FIFOs")
    path.unlink()
    os.mkfifo(path)  # whoever opens it waits for ever


def without_end(path: Path) -> None:
    if not Path("/dev/zero").exists():
        pytest.skip("there is no such device")
    path.unlink()
    path.symlink_to("/dev/zero")


def holding(data: bytes) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.write_bytes(data)

    return damage


DAMAGES = {
    "truncated": truncated,
    "unreadable": unreadable,
    "folder": a_folder,
    "FIFO": a_fifo,
    "without end": without_end,
    "empty": holding(b""),
    "binary": holding(bytes(range(256))),
    "number": holding(b"7"),
    "null": holding(b"null"),
    "text": holding(b'"text"'),
    "list": holding(b"[]"),
    "pair": holding(b"[1, 2]"),
    "object": holding(b"{}"),
    "entries": holding(b'{"format": "coinfer-profile/1", "entries": [7], "effort": 1}'),
    "no entry": holding(b'{"format": "coinfer-profile/1", "entries": [], "effort": []}'),
    "wrong types": holding(b'{"error": [], "why": 1, "nonfinite": 2, "reference": 3}'),
    "huge number": holding(b'{"error": 1' + b"0" * 400 + b', "why": "", "nonfinite": false}'),
    "deep": holding(b"[" * 100_000 + b"]" * 100_000),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "profiles"


def files(folder: Path) -> list[Path]:
    return [path for path in folder.parent.rglob("*.json") if path.is_file()]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_measurement_counts_as_not_measured(
    folder: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    ProfileCache(folder).put(PARTS, MEASURED)
    [path] = files(folder)
    damage(path)
    assert ProfileCache(folder).get(PARTS) is None
    assert ProfileCache(folder).get(PARTS) is None
    [warning] = warnings(caplog)
    assert str(path) in warning
    assert "measured again" in warning


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_agreement_counts_as_not_compared(
    folder: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    keep(ProfileCache(folder), PARTS, AGREED)
    assert kept(ProfileCache(folder), PARTS) == AGREED
    [path] = files(folder)
    damage(path)
    assert kept(ProfileCache(folder), PARTS) is None
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_fingerprint_is_computed_again(
    folder: Path,
    tmp_path: Path,
    damage: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("coinfer.profiling.fingerprints._SETTLED_NS", -1)
    onnx.save(onnx.load_from_string(tiny_linear().model.to_bytes()), tmp_path / "m.onnx")
    known = fingerprint_of(load_model(tmp_path / "m.onnx"), ProfileCache(folder))
    [path] = files(folder)
    damage(path)
    assert fingerprint_of(load_model(tmp_path / "m.onnx"), ProfileCache(folder)) == known
    assert warnings(caplog)


def test_what_can_be_replaced_is_replaced(folder: Path) -> None:
    ProfileCache(folder).put(PARTS, MEASURED)
    truncated(files(folder)[0])
    ProfileCache(folder).put(PARTS, MEASURED)
    assert ProfileCache(folder).get(PARTS) == MEASURED


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT], ids=os.strerror)
def test_where_nothing_can_be_written_one_warning_says_so(
    folder: Path, number: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(cache, "replace_file", full)
    ProfileCache(folder).put(PARTS, MEASURED)
    keep(ProfileCache(folder), PARTS, AGREED)
    [warning] = warnings(caplog)
    assert all(part in warning for part in (str(folder), os.strerror(number), "COINFER_CACHE"))


def test_what_is_not_there_is_no_damage(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert ProfileCache(folder).get(PARTS) is None
    assert kept(ProfileCache(folder), PARTS) is None
    assert not warnings(caplog)
