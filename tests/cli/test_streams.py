"""The program copes with any standard output: ASCII only, closed, full, or read in part."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from coinfer.cli import main
from coinfer.testing.models import tiny_linear

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes are others there")

WAIT_S = 120.0

VERBS = {
    "doctor": ["doctor"],
    "doctor json": ["doctor", "--json"],
    "help": ["--help"],
    "help of a verb": ["run", "--help"],
    "version": ["--version"],
    "zoo": ["zoo", "list"],
    "scenarios": ["scenarios", "list"],
    "inspect": ["inspect", "MODEL", "--operators"],
    "inspect json": ["inspect", "MODEL", "--json", "-"],
    "profile": ["profile", "MODEL"],
    "partition": ["partition", "MODEL"],
    "run": ["run", "SCENARIO"],
    "simulate": ["simulate", "SCENARIO"],
    "bound": ["bound", "SCENARIO"],
    "wrong": ["inspect", "überall.onnx"],
}
SCENARIO = """\
name: "n→é"
models: {m: {source: model.onnx, deadline: 1s}}
arrivals: {m: {poisson: 100/s}}
duration: 0.2s
warmup: 0.05s
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streams")
    proto = onnx.load_from_string(tiny_linear().model.to_bytes())
    for node in proto.graph.node:
        node.name = f"n→é├{node.name}"
    onnx.save(proto, folder / "model.onnx")
    (folder / "scenario.yaml").write_text(SCENARIO, encoding="utf-8")
    return folder


def words(folder: Path, arguments: list[str]) -> list[str]:
    files = {"MODEL": f"{folder}/model.onnx", "SCENARIO": f"{folder}/scenario.yaml"}
    return [files.get(word, word) for word in arguments]


def command(folder: Path, arguments: list[str]) -> list[str]:
    return [sys.executable, "-m", "coinfer", *words(folder, arguments)]


def environment(folder: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "COINFER_CACHE": str(folder / "cache"), **more}


@pytest.mark.parametrize("arguments", VERBS.values(), ids=VERBS)
def test_an_ascii_terminal_gets_escapes(
    folder: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COINFER_CACHE", str(folder / "cache"))
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="ascii") for _ in "oe")
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", out)
        patched.setattr(sys, "stderr", err)
        with pytest.raises(SystemExit) as exit_:
            main(words(folder, arguments))
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode("ascii"))
    assert exit_.value.code == (2 if "überall.onnx" in arguments else 0), texts[1]
    assert "internal error" not in texts[1]
    if arguments[0] in ("inspect", "run") and "--help" not in arguments:
        assert "\\u2192" in texts[0] or "\\xfc" in texts[1]


def test_a_name_that_is_no_text_is_escaped(folder: Path) -> None:
    name = folder / os.fsdecode(b"caf\xe9.onnx")
    name.write_bytes((folder / "model.onnx").read_bytes())
    locale = {"PYTHONIOENCODING": "ascii", "LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0"}
    for more in ({}, locale):
        done = subprocess.run(
            [*command(folder, ["inspect"]), name],
            env=environment(folder, **more),
            capture_output=True,
            timeout=WAIT_S,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"caf\\udce9" in done.stdout


@pytest.mark.parametrize("name", ["doctor", "doctor json", "inspect json", "zoo", "version"])
def test_a_reader_that_leaves_is_no_error_of_ours(folder: Path, name: str) -> None:
    process = subprocess.Popen(
        command(folder, VERBS[name]),
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    _, said = process.communicate(timeout=WAIT_S)
    assert (process.returncode, said) == (141, b"")


def test_files_are_written_also_if_nobody_reads_the_output(folder: Path) -> None:
    result = folder / "result.json"
    process = subprocess.Popen(
        command(folder, ["inspect", "MODEL", "--json", str(result)]),
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    _, said = process.communicate(timeout=WAIT_S)
    assert (process.returncode, said) == (141, b"")
    assert json.loads(result.read_text())["macs"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("name", ["doctor", "inspect json", "version", "help"])
def test_a_full_disk_is_said_in_one_line(folder: Path, name: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command(folder, VERBS[name]),
            env=environment(folder),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "coinfer: error: No space left on device\n"


def test_a_closed_output_is_no_error(folder: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *command(folder, VERBS["inspect"])],
        env=environment(folder),
        stderr=subprocess.PIPE,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
