"""`coinfer cache`: what is kept, whether it is whole, and how to be rid of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from artefacts.stored import ensure, opened
from cli.program import Program
from coinfer.artefacts import ArtefactStore, default_store


@pytest.fixture
def store(program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArtefactStore:
    monkeypatch.setenv("COINFER_CACHE", str(tmp_path / "own"))
    monkeypatch.delenv("COINFER_ARTEFACTS")
    return default_store()


def test_an_empty_cache_is_listed_checked_and_emptied(
    program: Program, store: ArtefactStore
) -> None:
    assert f"0 B of at most 8 GiB in {store.folder}" in program("cache", "ls").out
    assert program("cache", "verify").out == "0 checked, 0 removed\n"
    assert program("cache", "rm", "--all").out == "0 removed, 0 B\n"


def test_what_is_kept_is_listed(program: Program, store: ArtefactStore) -> None:
    ensure(store, "a")
    ensure(store, "b")
    lease = opened(store, "a")
    listed = program("cache", "ls").out
    assert "in use" in listed
    data = json.loads(program("cache", "ls", "--json").out)
    assert {each["model"]: each["in_use"] for each in data["artefacts"]} == {"a": True, "b": False}
    assert data["bytes"] == sum(each["bytes"] for each in data["artefacts"])
    lease.close()


def test_a_damaged_one_is_removed_and_the_exit_status_says_so(
    program: Program, store: ArtefactStore
) -> None:
    ensure(store, "a")
    ensure(store, "b")
    bad = store.path({"name": "b"})
    (bad / "weights.bin").write_bytes(b"")
    done = program("cache", "verify")
    assert done.status == 1
    assert (
        done.out == f"{bad.name[:12]} removed: weights.bin has another size\n2 checked, 1 removed\n"
    )
    assert program("cache", "verify").status == 0
    assert json.loads(program("cache", "verify", "--json").out) == {"checked": 1, "removed": {}}


def test_what_is_no_artefact_is_listed_as_damaged_and_obeyed_by_no_terminal(
    program: Program, store: ArtefactStore
) -> None:
    ensure(store, "a\x1b[31m[bold]")
    ensure(store, "b")
    manifest = store.path({"name": "b"}) / "manifest.json"
    manifest.unlink()
    os.mkfifo(manifest)
    (store.folder / ("0" * 32)).write_bytes(b"no folder")
    listed = program("cache", "ls").out
    assert "damaged" in listed
    assert "\x1b" not in listed
    assert program("cache", "verify").out.endswith("2 checked, 1 removed\n")


def test_those_in_use_stay(program: Program, store: ArtefactStore) -> None:
    ensure(store, "a")
    ensure(store, "b")
    lease = opened(store, "a")
    assert "1 removed" in program("cache", "rm", "--all").out
    found = json.loads(program("cache", "rm", "--all", "--json").out)
    assert found == {"removed": [], "bytes": 0, "in_use": [lease.folder.name]}
    lease.close()
    assert "1 removed" in program("cache", "rm", lease.folder.name[:8]).out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "error: name artefacts, as `coinfer cache ls` lists them, or give --all"),
        (["--all", "a"], "error: name artefacts"),
        (["zzz"], "unknown artefact 'zzz'"),
    ],
)
def test_what_is_to_be_removed_must_be_said(
    arguments: list[str], complaint: str, program: Program, store: ArtefactStore
) -> None:
    ensure(store, "a")
    assert complaint in program("cache", "rm", *arguments).complaint
