"""The store of artefacts: what is opened is what was written; crashes and others do no harm."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from artefacts.stored import KIB, age, ensure, opened, parts_of, writing
from coinfer.artefacts import ArtefactStore, Made, MakeError, store
from coinfer.artefacts.artefact import MANIFEST
from coinfer.documents.digest import digest_of

MIB = 2**20


@pytest.fixture
def artefacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArtefactStore:
    monkeypatch.setattr(store, "_warned", set())
    return ArtefactStore(tmp_path / "artefacts", MIB)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_what_was_made_is_opened_and_not_made_again(artefacts: ArtefactStore) -> None:
    log: list[str] = []
    for _ in range(3):
        ensure(artefacts, make=writing(b"abc", log))
    lease = opened(artefacts)
    assert log == ["made"]
    assert lease.path("weights.bin").read_bytes() == b"abc"
    assert lease.artefact.facts == {"takes": {"x": 3}}
    assert lease.artefact.parts == parts_of("a")
    lease.close()
    lease.close()


def test_another_key_has_another_artefact(artefacts: ArtefactStore) -> None:
    ensure(artefacts, "a")
    assert artefacts.open(parts_of("b")) is None


def test_what_cannot_be_made_is_not_tried_again(artefacts: ArtefactStore) -> None:
    log: list[str] = []

    def refuse(folder: Path) -> Made:
        log.append("tried")
        (folder / "rest").write_bytes(b"x")
        return Made(refused="the library cannot")

    for _ in range(2):
        ensure(artefacts, make=refuse)
    assert log == ["tried"]
    assert artefacts.open(parts_of("a")) is None
    [entry] = artefacts.entries()
    assert entry.artefact is not None
    assert (entry.artefact.refused, entry.artefact.files) == ("the library cannot", {})


def flip(folder: Path) -> None:
    file = folder / "weights.bin"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def flip_and_set_back_the_time(folder: Path) -> None:
    file = folder / "weights.bin"
    status = file.stat()
    flip(folder)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def truncate(folder: Path) -> None:
    file = folder / "weights.bin"
    file.write_bytes(file.read_bytes()[:-1])


def change_a_fact(folder: Path) -> None:
    file = folder / MANIFEST
    file.write_text(file.read_text().replace('{"x": 3}', '{"x": 4}'))


def put_a_fifo_for_the_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    os.mkfifo(folder / MANIFEST)


def put_a_fifo_for_a_file(folder: Path) -> None:
    (folder / "weights.bin").unlink()
    os.mkfifo(folder / "weights.bin")


def signed(**changes: object) -> Callable[[Path], None]:
    """Change the manifest, and its digest with it."""

    def change(folder: Path) -> None:
        data = json.loads((folder / MANIFEST).read_text())
        data.update(changes)
        del data["digest"]
        (folder / MANIFEST).write_text(json.dumps({**data, "digest": digest_of(data)}))

    return change


def put_another_in_its_place(folder: Path) -> None:
    other = ArtefactStore(folder.parent / "other", MIB)
    ensure(other, "b")
    shutil.rmtree(folder)
    shutil.copytree(other.path(parts_of("b")), folder)


DAMAGES: list[Callable[[Path], object]] = [
    flip,
    flip_and_set_back_the_time,
    truncate,
    change_a_fact,
    put_another_in_its_place,
    lambda folder: (folder / "weights.bin").unlink(),
    lambda folder: (folder / MANIFEST).unlink(),
    lambda folder: (folder / MANIFEST).write_bytes(b""),
    lambda folder: (folder / MANIFEST).write_text(json.dumps({"digest": 1})),
    lambda folder: (folder / MANIFEST).write_text("[]"),
    put_a_fifo_for_the_manifest,
    put_a_fifo_for_a_file,
    signed(parts=[]),
    signed(model=3),
    signed(facts=[]),
    signed(made_s="x"),
    signed(files={"weights.bin": {"size": 1, "sha256": "", "state": 3}}),
    signed(files={"../weights.bin": {"size": 1, "sha256": "", "state": []}}),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_never_opened_but_made_again_with_one_warning(
    damage: Callable[[Path], object],
    artefacts: ArtefactStore,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ensure(artefacts)
    damage(artefacts.path(parts_of("a")))
    assert artefacts.open(parts_of("a")) is None
    log: list[str] = []
    ensure(artefacts, make=writing(b"new", log))
    assert log == ["made"]
    assert opened(artefacts).path("weights.bin").read_bytes() == b"new"
    [warning] = warnings(caplog)
    assert "is damaged" in warning


def test_what_stands_in_the_place_of_its_folder_makes_way(artefacts: ArtefactStore) -> None:
    ensure(artefacts)
    folder = artefacts.path(parts_of("a"))
    shutil.rmtree(folder)
    os.mkfifo(folder)
    assert artefacts.entries() == []
    assert artefacts.open(parts_of("a")) is None
    ensure(artefacts)
    opened(artefacts).close()


def test_a_damaged_one_is_replaced_while_another_process_uses_what_it_was(
    artefacts: ArtefactStore,
) -> None:
    ensure(artefacts)
    lease = opened(artefacts)
    truncate(lease.folder)
    ensure(artefacts, make=writing(b"new"))
    assert opened(artefacts).path("weights.bin").read_bytes() == b"new"
    lease.close()


def test_a_copied_cache_is_read_once_and_used(
    artefacts: ArtefactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure(artefacts)
    copy = ArtefactStore(tmp_path / "copy", MIB)
    shutil.copytree(artefacts.folder, copy.folder)
    reads: list[Path] = []
    digest = "coinfer.artefacts.artefact._sha256"
    from coinfer.artefacts.artefact import _sha256

    def counted(path: Path) -> str:
        reads.append(path)
        return _sha256(path)

    monkeypatch.setattr(digest, counted)
    for _ in range(2):
        opened(copy).close()
    assert len(reads) == 1


def test_a_thorough_look_finds_what_the_system_does_not_tell(artefacts: ArtefactStore) -> None:
    ensure(artefacts)
    ensure(artefacts, "b")
    good, bad = (artefacts.path(parts_of(name)) for name in "ab")
    truncate(bad)
    assert artefacts.verify(good.name) == ""
    assert "another size" in artefacts.verify(bad.name)


def test_the_longest_unused_goes_first_and_what_is_used_stays(tmp_path: Path) -> None:
    small = ArtefactStore(tmp_path / "artefacts", 200 * KIB)
    for seconds, name in ((30, "a"), (20, "b"), (10, "c")):
        ensure(small, name, writing(bytes(50 * KIB)), expected_bytes=50 * KIB)
        age(small, name, seconds)
    lease = opened(small, "a")
    age(small, "a", 100)
    ensure(small, "d", writing(bytes(90 * KIB)), expected_bytes=90 * KIB)
    left = {name for name in "abcd" if small.knows(parts_of(name))}
    assert left == {"a", "c", "d"}
    lease.close()
    age(small, "a", 100)
    small.trim(room=60 * KIB)
    assert not small.knows(parts_of("a"))


def test_a_model_larger_than_the_limit_is_left_alone_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = ArtefactStore(tmp_path / "artefacts", 10 * KIB)
    for _ in range(2):
        ensure(small, expected_bytes=20 * KIB)
    assert not small.folder.exists()
    assert len(warnings(caplog)) == 1


def test_a_limit_of_zero_keeps_and_opens_nothing(artefacts: ArtefactStore) -> None:
    ensure(artefacts)
    none = ArtefactStore(artefacts.folder, 0)
    assert none.open(parts_of("a")) is None
    ensure(none, "b")
    assert artefacts.open(parts_of("b")) is None


def test_a_full_disk_is_left_alone_with_one_warning(
    artefacts: ArtefactStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "coinfer.artefacts.store.shutil.disk_usage", lambda path: SimpleNamespace(free=100 * MIB)
    )
    for name in "ab":
        ensure(artefacts, name)
        assert artefacts.open(parts_of(name)) is None
    [warning] = warnings(caplog)
    assert "only 100 MiB are free" in warning


def test_a_folder_that_cannot_be_written_is_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    broken = ArtefactStore(tmp_path / "file" / "artefacts", MIB)
    for _ in range(2):
        ensure(broken)
        assert broken.open(parts_of("a")) is None
        assert broken.entries() == []
        broken.trim()
    assert len(warnings(caplog)) == 1


def test_what_fails_leaves_nothing_and_is_tried_again(
    artefacts: ArtefactStore, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(folder: Path) -> Made:
        (folder / "rest").write_bytes(b"x")
        raise MakeError("out of memory")

    ensure(artefacts, make=fail)
    assert list(artefacts.folder.iterdir()) == []
    [warning] = warnings(caplog)
    assert "out of memory" in warning
    ensure(artefacts)
    opened(artefacts).close()


def test_an_interrupt_leaves_nothing(artefacts: ArtefactStore) -> None:
    def interrupt(folder: Path) -> Made:
        (folder / "rest").write_bytes(b"x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure(artefacts, make=interrupt)
    assert list(artefacts.folder.iterdir()) == []


def test_rests_of_crashed_processes_are_removed_after_a_while(artefacts: ArtefactStore) -> None:
    ensure(artefacts)
    fresh, stale = (artefacts.folder / f".x{number}.part" for number in (1, 2))
    for folder in (fresh, stale):
        folder.mkdir()
        (folder / "weights.bin").write_bytes(b"x")
    long_ago = time.time() - 7200
    os.utime(stale, (long_ago, long_ago))
    artefacts.trim()
    assert fresh.exists()
    assert not stale.exists()
    assert artefacts.knows(parts_of("a"))


PROCESS = """
import sys, time
from pathlib import Path
from artefacts.stored import ensure, opened, parts_of
from coinfer.artefacts import ArtefactStore, Made

store = ArtefactStore(Path(sys.argv[1]), 2**20)


def make(folder):
    print("made", flush=True)
    time.sleep(0.5)
    (folder / "weights.bin").write_bytes(b"abc")
    return Made()


ensure(store, make=make)
assert opened(store).path("weights.bin").read_bytes() == b"abc"
"""


def test_of_several_processes_one_makes_it_and_all_use_it(artefacts: ArtefactStore) -> None:
    here = str(Path(__file__).parent.parent)
    paths = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(artefacts.folder)],
            env={**os.environ, "PYTHONPATH": paths},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    said = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert "".join(said) == "made\n"
    assert [path.name for path in artefacts.folder.iterdir()] == [
        artefacts.path(parts_of("a")).name
    ]


def test_a_process_that_uses_one_keeps_it_from_removal(artefacts: ArtefactStore) -> None:
    ensure(artefacts)
    name = artefacts.path(parts_of("a")).name
    lease = opened(artefacts)
    assert artefacts.entries()[0].in_use
    assert not artefacts.remove(name)
    lease.close()
    assert not artefacts.entries()[0].in_use
    assert artefacts.remove(name)
    assert artefacts.entries() == []


def test_a_damaged_artefact_is_not_removed_once_another_stands_in_its_place(
    artefacts: ArtefactStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever found the damage removes what it looked at, and not what was made anew meanwhile."""
    ensure(artefacts)
    lease = opened(artefacts)
    artefacts.remove_damaged(lease.folder.name)  # by another process, which makes it again
    ensure(artefacts, make=writing(b"new"))
    artefacts.discard(lease, "it cannot be read")
    again = opened(artefacts)
    assert again.path("weights.bin").read_bytes() == b"new"
    assert "damaged" not in caplog.text
    artefacts.discard(again, "it cannot be read")
    assert artefacts.open(parts_of("a")) is None
    assert "it cannot be read" in caplog.text
