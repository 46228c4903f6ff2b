"""Limits of inputs: what would fill the memory, or is no picture or array, is refused in a line."""

from __future__ import annotations

import io
import os
import struct
import threading
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coinfer.errors import CoinferError, InputError, ModelError, ScenarioError
from coinfer.model.inputs import MOST_BYTES
from coinfer.planner.given_samples import read_samples
from coinfer.testing.models import model_from_text
from coinfer.workload.input_spec import ArrayInputs, ImageInputs, RandomInputs
from coinfer.workload.inputs import prepare_feeds
from coinfer.workload.npz_file import read_npz
from coinfer.workload.scenario_file import parse_scenario

NET = model_from_text("m (float[N,3] x) => (float[N,3] y) { y = Relu(x) }", name="net")
PICTURES = model_from_text("m (float[N,3,8,8] x) => (float[N,3,8,8] y) { y = Relu(x) }", name="net")


def member(shape: str, descr: str = "'<f4'", data: bytes = b"") -> bytes:
    """An array as numpy writes it, with any header."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def archive(path: Path, *members: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members:
            file.writestr(name, data)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_npz(path)
    message = str(caught.value)
    assert message.startswith(f"{path} cannot be read as an .npz file: ")
    assert "\n" not in message
    return message


# --- archives ---------------------------------------------------------------------------------


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> int:
    """A limit that a test can reach."""
    limit = 2**20
    for module in ("model.inputs", "workload.npz_file", "workload.inputs", "workload.images"):
        monkeypatch.setattr(f"coinfer.{module}.MOST_BYTES", limit)
    return limit


def test_an_archive_that_unpacks_to_too_much_is_refused_unread(
    tmp_path: Path, small_limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((400_000, 3), np.float32))
    assert (tmp_path / "a.npz").stat().st_size < small_limit
    monkeypatch.setattr(zipfile.ZipFile, "open", None)
    message = refusal(tmp_path / "a.npz")
    assert "unpacks to 4.58 MiB; at most 1 MiB of arrays are read" in message


def test_the_arrays_of_an_archive_count_together(tmp_path: Path, small_limit: int) -> None:
    each = np.zeros(100_000, np.float32)
    np.savez_compressed(tmp_path / "a.npz", **{f"x{i}": each for i in range(3)})
    assert "at most 1 MiB" in refusal(tmp_path / "a.npz")


def test_a_directory_that_lies_about_a_size_is_refused(tmp_path: Path, small_limit: int) -> None:
    """The archive says that a member is small, and what is packed is large."""
    plain = member("(400000, 3)", data=bytes(4_800_000))
    path = archive(tmp_path / "a.npz", ("x.npy", plain))
    data, true = path.read_bytes(), struct.pack("<I", len(plain))
    assert data.count(true) == 2
    path.write_bytes(data.replace(true, struct.pack("<I", 1000)))
    assert "'x'" in refusal(path)


@pytest.mark.parametrize(
    "shape", ["(1000000000000,)", f"({2**62}, {2**62})", "(3,)", f"({10**100},)", "(-1, -5)"]
)
def test_a_header_that_states_more_than_there_is_is_refused(tmp_path: Path, shape: str) -> None:
    path = archive(tmp_path / "a.npz", ("x.npy", member(shape, data=bytes(8))))
    message = refusal(path)
    assert "'x'" in message
    assert "fewer bytes" in message


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("x.txt", b"hello", "its member 'x.txt' is no array"),
        ("x.npy", b"hello", "its member 'x' is no array"),
        ("x.npy", b"", "its member 'x' is no array"),
        ("x.npy", member("(1,)", "'O'", b"cos\nsystem\n"), "Python objects, which are not unpick"),
        ("x.npy", member("(1,)", "[('a', '<f4')]", bytes(4)), "records"),
        ("x.npy", member("(1,)", "'zzz'"), "its member 'x' is no array"),
        ("x.npy", member("(" * 500), "its member 'x' is no array"),
        ("x.npy", b"\x93NUMPY\x09\x00" + bytes(60), "its member 'x' is no array"),
    ],
)
def test_members_that_are_no_arrays_are_refused(
    tmp_path: Path, name: str, data: bytes, words: str
) -> None:
    assert words in refusal(archive(tmp_path / "a.npz", (name, data)))


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([{}], dtype=object))
    monkeypatch.setattr("pickle.load", lambda *_: pytest.fail("unpickled"))
    assert "not unpickled" in refusal(tmp_path / "a.npz")


def test_too_many_arrays_are_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.npz", *((f"x{i}.npy", b"") for i in range(1001)))
    assert "1001 members; at most 1000 arrays" in refusal(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_arrays_of_one_name_are_refused(tmp_path: Path) -> None:
    one = member("(1,)", data=bytes(4))
    assert "two arrays 'x'" in refusal(archive(tmp_path / "a.npz", ("x.npy", one), ("x.npy", one)))


def test_any_damage_is_one_error(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.npz", ("x.npy", member("(99,)", data=os.urandom(396))))
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            read_npz(path)
        except InputError as error:
            assert "\n" not in str(error).replace(str(path), "")  # noqa: PT017


def test_a_good_archive_is_read(tmp_path: Path) -> None:
    arrays = {
        "f": np.arange(6, dtype=np.float32).reshape(2, 3),
        "big": np.arange(3, dtype=">i8"),
        "order": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "text": np.array(["a", "bc"]),
        "none": np.zeros((0, 3)),
        "number": np.float64(3),
    }
    np.savez(tmp_path / "a.npz", **arrays)
    read = read_npz(tmp_path / "a.npz")
    assert read.keys() == arrays.keys()
    assert all(np.array_equal(read[name], arrays[name]) for name in arrays)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs")
def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.npz")
    assert "no regular file" in refusal(tmp_path / "a.npz")
    with pytest.raises(InputError, match="no regular file"):
        read_samples(NET, tmp_path / "a.npz")


@pytest.mark.parametrize("shape", ["(1000000000000000000, 0)", f"({10**6}, 0)"])
def test_samples_of_no_size_are_counted_too(tmp_path: Path, shape: str) -> None:
    path = archive(tmp_path / "a.npz", ("x.npy", member(shape)))
    with pytest.raises(InputError, match="at most 100000"):
        prepare_feeds(ArrayInputs(npz=path), NET, batch=1, seed=0)


@pytest.mark.parametrize("batch", [99_999, 10**12])
def test_batches_that_go_round_do_not_multiply_without_limit(tmp_path: Path, batch: int) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((100_000, 3), np.float32))
    with pytest.raises(InputError, match=r"take more than 2 GiB; let the number of samples"):
        prepare_feeds(ArrayInputs(npz=tmp_path / "a.npz"), NET, batch=batch, seed=0)


# --- generated inputs -------------------------------------------------------------------------


def test_a_scenario_may_not_ask_for_a_billion_samples() -> None:
    text = "models: {m: {source: m.onnx, inputs: {random: 1000000000}}}\narrivals: {m: closed}"
    with pytest.raises(ScenarioError, match=r"inputs\.random: must be at most 100000"):
        parse_scenario(text)


@pytest.mark.parametrize("shape", ["1000000000", f"{2**62},{2**62}", f"N,{2**62}"])
def test_inputs_that_no_memory_holds_are_not_made(shape: str) -> None:
    net = model_from_text(f"m (float[{shape}] x) => (float[{shape}] y) {{ y = Relu(x) }}", name="m")
    with pytest.raises(InputError, match=r"model 'm': inputs of the shapes 'x': .*2 GiB"):
        net.sample_inputs()
    with pytest.raises(InputError, match=r"more than 2 GiB"):
        prepare_feeds(RandomInputs(random=1), net, batch=1, seed=0)


def test_sizes_that_no_memory_holds_are_not_made() -> None:
    net = model_from_text("m (float[N,w] x) => (float[N,w] y) { y = Relu(x) }", name="m")
    with pytest.raises(InputError, match=r"more than 2 GiB"):
        net.sample_inputs(dims={"w": 10**400})
    with pytest.raises(InputError, match=r"more than 2 GiB"):
        net.sample_inputs(batch=10**12, dims={"w": 1})


def test_samples_count_together_before_one_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    net = model_from_text("m (float[1000000] x) => (float[1000000] y) { y = Relu(x) }", name="m")
    monkeypatch.setattr("coinfer.model.inputs._random", lambda *_: pytest.fail("made"))
    assert 4_000_000 < MOST_BYTES < 4_000_000 * 1000
    with pytest.raises(InputError, match=r"together take more than 2 GiB.*`random: 1`"):
        prepare_feeds(RandomInputs(random=1000), net, batch=1, seed=0)


@pytest.mark.parametrize("role", ["input", "output"])
def test_more_axes_than_an_array_may_have_are_refused(role: str) -> None:
    many = ",".join(["1"] * 70)
    given, made = (many, "1") if role == "input" else ("1", many)
    shape = "s" if role == "output" else "t"
    constants = f"<int64[70] s = {{{many}}}, int64[1] t = {{1}}>"
    text = f"m (float[{given}] x) => (float[{made}] y) {constants} {{ y = Reshape(x, {shape}) }}"
    with pytest.raises(ModelError, match=rf"{role} '.' has 70 axes; no array .* more than 64"):
        model_from_text(text, name="m")


# --- pictures ---------------------------------------------------------------------------------


def png(path: Path, width: int, height: int) -> Path:
    """A header that states a size, and no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("size", [13_000, 50_000, 2**31 - 1])
def test_a_picture_above_the_limit_is_an_error_and_no_warning(tmp_path: Path, size: int) -> None:
    png(tmp_path / "a.png", size, size)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.raises(InputError, match=r"a\.png has more than 89478485 pixels, the limit of"):
            prepare_feeds(ImageInputs(images=tmp_path), PICTURES, batch=1, seed=0)
    assert not seen


def test_the_frame_of_pictures_has_a_limit(tmp_path: Path) -> None:
    net = model_from_text("m (float[N,3,h,w] x) => (float[N,3,h,w] y) { y = Relu(x) }", name="m")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"1 pictures of 100000 x 100000 pixels .* 2 GiB"):
        prepare_feeds(ImageInputs(images=tmp_path, size=(10**5, 10**5)), net, batch=1, seed=0)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs")
@pytest.mark.parametrize("through_link", [False, True])
@pytest.mark.parametrize("kind", ["fifo", "socket", "device", "folder"])
def test_what_is_no_file_is_skipped_with_a_warning_and_never_opened(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    through_link: bool,
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "b.png")
    special = tmp_path / "special" if through_link else folder / "a.png"
    if kind == "device":
        through_link, special = True, Path("/dev/zero")  # only root makes devices
    with _special(kind, special, monkeypatch):
        if through_link:
            (folder / "a.png").symlink_to(special)
        opened: list[str] = []
        real = os.open
        monkeypatch.setattr(
            os, "open", lambda p, *a, **k: opened.append(str(p)) or real(p, *a, **k)
        )
        feeds = prepare_feeds(ImageInputs(images=folder), PICTURES, batch=1, seed=0)
    assert len(feeds) == 1
    assert [name for name in opened if name.endswith(".png")] == [str(folder / "b.png")]
    assert [record.getMessage() for record in caplog.records] == [
        f"{folder / 'a.png'} is no regular file; it is skipped"
    ]


class _special:  # noqa: N801 - used as a context
    def __init__(self, kind: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import socket

        self.server = socket.socket(socket.AF_UNIX) if kind == "socket" else None
        if self.server is not None:
            with monkeypatch.context() as patch:
                patch.chdir(path.parent)  # names of sockets are short
                self.server.bind(path.name)
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        if self.server is not None:
            self.server.close()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs")
def test_a_picture_swapped_for_a_fifo_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "a.png")
    monkeypatch.setattr(Path, "is_file", lambda path: True)
    found: list[BaseException] = []

    def read() -> None:
        try:
            prepare_feeds(ImageInputs(images=tmp_path), PICTURES, batch=1, seed=0)
        except InputError as error:
            found.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(20)
    assert "no regular file" in str(found[0])


def test_any_damage_of_a_picture_is_one_error(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (1, 2, 3)).save(stream, "PNG")
    whole = stream.getvalue()
    for at in range(len(whole)):
        (tmp_path / "a.png").write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            prepare_feeds(ImageInputs(images=tmp_path), PICTURES, batch=1, seed=0)
        except CoinferError as error:
            assert "a.png" in str(error)  # noqa: PT017
