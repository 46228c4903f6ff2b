"""What `coinfer.documents.writing` promises of every file that is written."""

from __future__ import annotations

import ast
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import coinfer
from coinfer.cli.output import check_writable, write_json
from coinfer.documents.writing import check_can_write, replace_file, replace_folder, replacing
from coinfer.errors import ConfigurationError
from coinfer.metrics.trace import write_trace

POSIX = pytest.mark.skipif(os.name != "posix", reason="needs the files of POSIX")

WRITERS: dict[str, Callable[[Path], None]] = {
    "data": lambda path: replace_file(path, "new"),
    "json": lambda path: write_json(path, "new"),
    "trace": lambda path: write_trace(path, requests=(), executions=(), processors=()),
    "check": check_writable,
}


@pytest.fixture(params=WRITERS)
def write(request: pytest.FixtureRequest) -> Callable[[Path], None]:
    return WRITERS[request.param]


@pytest.fixture
def umask() -> Iterator[int]:
    before = os.umask(0o027)
    yield 0o027
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_files_of_others_stay(tmp_path: Path, write: Callable[[Path], None]) -> None:
    theirs = tmp_path / "r.json.part"
    theirs.write_text("mine")
    write(tmp_path / "r.json")
    assert theirs.read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} <= {"r.json", "r.json.part"}


@POSIX
def test_a_link_stays_a_link_and_leads_to_what_is_written(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "real.json", tmp_path / "link.json"
    target.write_text("old")
    link.symlink_to(Path("there", "real.json"))
    write(link)
    assert link.is_symlink()
    assert target.read_text() == "old" if write is check_writable else target.read_text() != "old"
    assert [path.name for path in target.parent.iterdir()] == ["real.json"]


@POSIX
def test_a_link_to_nothing_makes_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    replace_file(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


@POSIX
@pytest.mark.parametrize("bits", [0o600, 0o640, 0o666])
def test_the_permissions_of_what_was_there_are_kept(
    tmp_path: Path, umask: int, write: Callable[[Path], None], bits: int
) -> None:
    path = tmp_path / "r.json"
    path.write_text("old")
    path.chmod(bits)
    write(path)
    assert mode(path) == bits


@POSIX
def test_a_new_file_gets_what_the_umask_says(tmp_path: Path, umask: int) -> None:
    for name, write in WRITERS.items():
        write(tmp_path / name)
        if name != "check":
            assert mode(tmp_path / name) == 0o666 & ~umask


@POSIX
def test_what_is_being_written_is_as_private_as_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text("old")
    path.chmod(0o600)
    with replacing(path) as file:
        file.write(b"secret")
        [scratch] = set(tmp_path.iterdir()) - {path}
        assert mode(scratch) == 0o600


@POSIX
def test_a_fifo_is_written_to_and_stays(tmp_path: Path, write: Callable[[Path], None]) -> None:
    path, read = tmp_path / "fifo", []
    os.mkfifo(path)
    # Open for both: neither side waits, and nothing is left behind if nothing is written.
    number = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        write(path)
        if write is not check_writable:
            read.append(os.read(number, 1 << 16))
            assert read[0].strip()
    finally:
        os.close(number)
    assert stat.S_ISFIFO(path.stat().st_mode)
    assert [one.name for one in tmp_path.iterdir()] == ["fifo"]


@pytest.mark.skipif(not Path("/dev/null").is_char_device(), reason="there is no /dev/null")
def test_a_device_is_written_to_and_stays(write: Callable[[Path], None]) -> None:
    before = set(Path("/dev").iterdir())
    write(Path("/dev/null"))
    assert Path("/dev/null").is_char_device()
    left = {path.name for path in set(Path("/dev").iterdir()) - before}
    assert not {name for name in left if "null" in name}


@pytest.mark.skipif(not Path("/dev/null").is_char_device(), reason="there is no /dev/null")
def test_several_results_may_be_thrown_away() -> None:
    check_writable(Path("/dev/null"), Path("/dev/null"), None)


@pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="open files have no names here")
def test_a_name_of_an_open_file_is_not_replaced(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    """As of /dev/stdout, where the shell has sent the output to a file."""
    path = tmp_path / "out.txt"
    with path.open("wb", buffering=0) as out:
        out.write(b"table\n")
        write(Path(f"/dev/fd/{out.fileno()}"))
        if write is not check_writable:
            assert path.stat().st_size > len(b"table\n")
            out.seek(0, os.SEEK_END)
        out.write(b"end\n")
    assert path.read_bytes().startswith(b"table\n")
    assert path.read_bytes().endswith(b"end\n")
    assert [one.name for one in tmp_path.iterdir()] == ["out.txt"]


@POSIX
def test_a_socket_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.chdir(tmp_path)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        with pytest.raises(ConfigurationError, match="cannot write s: "):
            write_json(Path("s"), {})
        assert Path("s").is_socket()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, ValueError])
def test_an_interrupted_writer_leaves_the_old_file_alone(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "r.json"
    path.write_text("old")

    def write() -> None:
        with replacing(path) as file:
            file.write(b"n")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_trace_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text("old")

    def records() -> Iterator[None]:
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        write_trace(path, requests=records(), executions=(), processors=())  # type: ignore[arg-type]
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@POSIX
def test_a_file_that_may_not_be_written_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.json"
    path.write_text("old")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everything
    for write in (lambda: replace_file(path, "new"), lambda: check_can_write(path)):
        with pytest.raises(PermissionError):
            write()
    assert path.read_text() == "old"


def test_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    threads = [
        threading.Thread(target=lambda text=str(n) * 9999: replace_file(path, text))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(path.read_text())) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_written_into_a_scratch_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coinfer.documents.writing._beside", lambda path: tmp_path / "taken")
    (tmp_path / "taken").mkdir()
    with pytest.raises(FileExistsError):
        replace_folder(tmp_path / "plan", {"a": b"1"})


def test_no_file_of_the_product_is_written_otherwise() -> None:
    """But for the log of a run; a setting of the kernel and the null device are no files."""
    package = Path(coinfer.__file__).parent
    found = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _writes(node):
                found.add(path.relative_to(package).as_posix())
    null_device = {"backends/mapped_file.py"}  # what is read ahead goes nowhere
    assert found <= {"documents/writing.py", "experiments/review_child.py"} | null_device


def _writes(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    if name in {"write_text", "write_bytes", "mkstemp", "NamedTemporaryFile", "savez", "touch"}:
        return True
    opens = name == "open" or (isinstance(call.func, ast.Name) and call.func.id == "open")
    constants = [arg.value for arg in call.args if isinstance(arg, ast.Constant)]
    return opens and any(isinstance(one, str) and set(one) & set("wxa+") for one in constants)
