"""Whatever is wrong is said in one line on stderr that names it, and the exit status is not 0."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cli.program import TINY, Program
from coinfer import zoo


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["nope"], ["No such command 'nope'", "coinfer --help"]),
        (["run"], ["Missing argument 'SCENARIO'", "coinfer run --help"]),
        (["run", "--polcy", "fcfs", "x.yaml"], ["--polcy", "--policy"]),
        (["run", "x.yaml", "--seed", "x"], ["--seed", "integer"]),
        (["profile", "zoo:tiny_mlp", "--batch", "0"], ["--batch", "1"]),
        (["run", "missing.yaml"], ["missing.yaml: no such scenario file"]),
        (["run", "."], [".: cannot be read"]),
        (["profile", "missing.onnx"], ["missing.onnx' does not exist"]),
        (["profile", "zoo:tiny_cn"], ["unknown zoo network 'tiny_cn'", "'tiny_cnn'"]),
        (["profile", "zoo:tiny_mlp", "--backend", "onxruntime"], ["'onnxruntime'?"]),
        (["profile", "zoo:tiny_mlp", "--precision", "fp8"], ["'fp8'", "bf16, fp16, int8"]),
        (["inspect", "missing.onnx"], ["missing.onnx' does not exist"]),
    ],
    ids=" ".join,
)
def test_wrong_arguments(
    program: Program, monkeypatch: pytest.MonkeyPatch, arguments: list[str], parts: list[str]
) -> None:
    monkeypatch.chdir(program.folder)
    outcome = program(*arguments)
    assert outcome.status == 2
    assert all(part in outcome.complaint for part in parts), outcome.complaint


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--policy", "fifo"], ["unknown policy 'fifo'", "fcfs", "earliest_finish"]),
        (["--policy", "earliest_finsh"], ["did you mean 'earliest_finish'"]),
        (["--policy", "fixed"], ["policy 'fixed'", "assignment", "required"]),
        (["--duration", "-1"], ["'-1' is not a duration"]),
        (["--duration", "0"], ["duration must be greater than 0"]),
        (["--seed", "-1"], ["seed must not be negative"]),
        (["--json", "."], [". is a folder"]),
        (["--json", "/dev/null/x.json"], ["cannot write /dev/null/x.json"]),
        (["--trace", "/dev/null/x.json"], ["cannot write /dev/null/x.json"]),
        (["--json", "same", "--trace", "same"], ["same is named for two results"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_wrong_options_of_run(
    program: Program, monkeypatch: pytest.MonkeyPatch, options: list[str], parts: list[str]
) -> None:
    monkeypatch.chdir(program.folder)
    outcome = program("run", program.scenario(), *options)
    assert outcome.status == 2
    assert all(part.lower() in outcome.complaint.lower() for part in parts), outcome.complaint


def swapped(old: str, new: str) -> str:
    assert old in TINY
    return TINY.replace(old, new)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("models: {a: [\n", ["scenario.yaml:"]),
        (swapped("duration:", "duratoin:"), ["scenario.yaml:8: duratoin", "'duration'"]),
        (swapped("deadline: 1s", "deadlin: 1s"), ["scenario.yaml:3", "'deadline'"]),
        (swapped("poisson: 100/s", "poisson: fast"), ["scenario.yaml:6", "'fast'"]),
        (swapped("zoo:tiny_mlp", "zoo:tiny_mpl"), ["unknown zoo network", "'tiny_mlp'"]),
        (swapped("zoo:tiny_mlp", "gone.onnx"), ["gone.onnx' does not exist"]),
        (swapped("  mlp: {closed: 2}\n", ""), ["model 'mlp' gets no requests"]),
        (TINY + "policy: {name: fcfs, options: {speed: 1}}\n", ["option of policy 'fcfs' 'speed'"]),
        (TINY + "processors: {backends: [onxruntime]}\n", ["backend", "'onnxruntime'"]),
        (TINY + "processors: {cores: [4711]}\n", ["core 4711 may not be used"]),
        (TINY + "processors: [cpu99]\n", ["unknown processor 'cpu99'", "coinfer doctor"]),
        (
            TINY + "processors: [{name: x, backend: nope, units: [u]}]\n",
            ["unknown backend 'nope'", "onnxruntime"],
        ),
        (
            TINY + "policy: {name: fixed, options: {assignment: {cnn: cpu0}}}\n",
            ["no processor for 'mlp'"],
        ),
        ("", ["scenario.yaml"]),
        ("just text", ["scenario.yaml"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_wrong_scenarios(program: Program, text: str, parts: list[str]) -> None:
    outcome = program("run", program.scenario(text))
    assert outcome.status == 2
    assert all(part in outcome.complaint for part in parts), outcome.complaint


def test_a_scenario_that_is_not_text(program: Program) -> None:
    path = program.scenario()
    path.write_bytes(b"\xff\xfe\x00models")
    assert "cannot be read as text" in program("run", path).complaint


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99], ids=str)
def test_a_truncated_model_file(program: Program, keep: float) -> None:
    [path] = zoo.export(["tiny_cnn"], program.folder)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    text = swapped('"zoo:tiny_cnn"', "tiny_cnn.onnx")
    assert "tiny_cnn.onnx" in program("run", program.scenario(text)).complaint


@pytest.mark.parametrize(
    ("arrays", "parts"),
    [
        ({"picture": np.zeros((2, 16), np.float32)}, ["'x'", "picture"]),
        ({"x": np.zeros((2, 16), np.float64)}, ["float64", "float32"]),
        ({"x": np.zeros((2, 17), np.float32)}, ["17", "16"]),
        ({"x": np.zeros((0, 16), np.float32)}, ["first axis"]),
    ],
    ids=["name", "dtype", "shape", "empty"],
)
def test_inputs_that_do_not_fit(
    program: Program, arrays: dict[str, np.ndarray], parts: list[str]
) -> None:
    np.savez(program.folder / "in.npz", **arrays)
    text = swapped('"zoo:tiny_mlp"', '{source: "zoo:tiny_mlp", inputs: in.npz}')
    outcome = program("run", program.scenario(text))
    assert outcome.status == 2
    assert all(part in outcome.complaint for part in ["mlp", *parts]), outcome.complaint


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 but no archive", b"text"])
def test_an_input_file_that_is_no_archive(program: Program, content: bytes) -> None:
    (program.folder / "in.npz").write_bytes(content)
    text = swapped('"zoo:tiny_mlp"', '{source: "zoo:tiny_mlp", inputs: in.npz}')
    assert "in.npz" in program("run", program.scenario(text)).complaint


def test_a_folder_without_images(program: Program) -> None:
    (program.folder / "photos").mkdir()
    text = swapped('"zoo:tiny_cnn"', '"zoo:tiny_cnn", inputs: {images: photos}')
    assert "photos" in program("run", program.scenario(text)).complaint


def test_a_folder_of_images_that_does_not_exist(program: Program) -> None:
    text = swapped('"zoo:tiny_cnn"', '"zoo:tiny_cnn", inputs: {images: nowhere}')
    assert "nowhere" in program("run", program.scenario(text)).complaint


def test_two_different_models_of_one_name(program: Program) -> None:
    [path] = zoo.export(["tiny_mlp"], program.folder, seed=1)
    outcome = program("profile", path, "zoo:tiny_mlp")
    assert "two different models are named 'tiny_mlp'" in outcome.complaint


def test_without_arguments_the_help_is_shown(program: Program) -> None:
    outcome = program()
    assert outcome.status == 2
    assert outcome.err == ""
    assert all(verb in outcome.out for verb in ("run", "profile", "inspect", "doctor", "zoo"))


def test_the_version_is_that_of_the_package(program: Program) -> None:
    import coinfer

    outcome = program("--version")
    assert (outcome.status, outcome.out) == (0, f"coinfer {coinfer.__version__}\n")


@pytest.mark.parametrize("verb", ["run", "profile", "inspect", "doctor", "zoo"])
def test_every_verb_explains_itself(program: Program, verb: str) -> None:
    outcome = program(verb, "--help")
    assert (outcome.status, outcome.err) == (0, "")
    assert f"coinfer {verb}" in outcome.out


@pytest.mark.parametrize(
    "arguments", [["run", "missing.yaml"], ["run", "--nope"], ["profile", "missing.onnx"]]
)
def test_as_a_program_of_its_own_it_says_the_same(tmp_path: Path, arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "coinfer", *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("coinfer: error: ")
