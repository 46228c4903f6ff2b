"""`coinfer fuse`: what it prints and writes, and what it says of models that cannot be fused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import coinfer
from cli.program import Program
from coinfer import zoo

TWO = ("zoo:tiny_cnn", "zoo:tiny_cnn?seed=1")


def test_the_file_runs_in_plain_onnxruntime(program: Program, tmp_path: Path) -> None:
    file, report = tmp_path / "out" / "fused.onnx", tmp_path / "report.json"
    done = program("fuse", *TWO, "-o", file, "--json", report)
    assert done.status == 0, done
    assert "tiny_cnn, tiny_cnn-2: " in done.out
    assert " of 7 operators merged" in done.out
    onnx.checker.check_model(onnx.load(file), full_check=True)
    session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    feeds = [zoo.sample_inputs("tiny_cnn", seed=seed) for seed in (0, 1)]
    names = ("tiny_cnn", "tiny_cnn-2")
    inputs = {f"{n}/image": feed["image"] for n, feed in zip(names, feeds, strict=True)}
    got = session.run([f"{name}/logits" for name in names], inputs)
    for seed, (feed, logits) in enumerate(zip(feeds, got, strict=True)):
        alone = ort.InferenceSession(
            zoo_bytes("tiny_cnn", seed), providers=["CPUExecutionProvider"]
        )
        np.testing.assert_allclose(logits, alone.run(None, feed)[0], rtol=1e-4, atol=1e-5)
    found = json.loads(report.read_text())
    assert [model["inputs"] for model in found["models"]] == [
        {"image": "tiny_cnn/image"},
        {"image": "tiny_cnn-2/image"},
    ]
    assert {each["form"] for each in found["operators"]} <= {"grouped", "branches"}


def zoo_bytes(name: str, seed: int) -> bytes:
    import onnx_ir as ir

    return ir.to_proto(zoo.build(name, seed=seed)).SerializeToString()


def test_the_file_runs_in_openvino(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    fused = coinfer.fuse(TWO)
    file = tmp_path / "fused.onnx"
    fused.save(file)
    model = openvino.Core().compile_model(
        file, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    )
    feeds = [zoo.sample_inputs("tiny_cnn", seed=seed) for seed in (0, 1)]
    outputs = model(fused.inputs_of(feeds))
    for member, seed, feed in zip(fused.members, (0, 1), feeds, strict=True):
        alone = ort.InferenceSession(
            zoo_bytes("tiny_cnn", seed), providers=["CPUExecutionProvider"]
        )
        (wanted,) = alone.run(None, feed)
        np.testing.assert_allclose(outputs[member.outputs["logits"]], wanted, rtol=1e-4, atol=1e-5)


def test_every_operator_is_listed_on_request(program: Program, tmp_path: Path) -> None:
    eight = [f"zoo:lenet?seed={seed}" for seed in range(8)]
    done = program("fuse", *eight, "-o", tmp_path / "f.onnx", "--operators")
    rows = [" ".join(line.split()) for line in done.out.splitlines()]
    assert any(row.endswith("Gemm grouped packed") for row in rows)


def test_one_input_for_all(program: Program, tmp_path: Path) -> None:
    file = tmp_path / "f.onnx"
    assert program("fuse", *TWO, "-o", file, "--same-input", "image").status == 0
    assert [value.name for value in onnx.load(file).graph.input] == ["image"]


@pytest.mark.parametrize(
    ("models", "said"),
    [
        (["zoo:lenet", "zoo:tiny_cnn"], "input 'image' is float[batch,1,32,32] in 'lenet', but"),
        (["zoo:mobilenet_v2", "zoo:squeezenet1_1"], "part at operator 'features.0.0' (Conv): its"),
        (["zoo:lenet", "missing.onnx"], "missing.onnx' does not exist"),
    ],
)
def test_what_cannot_be_fused_is_said_in_a_line(
    models: list[str], said: str, program: Program, tmp_path: Path
) -> None:
    outcome = program("fuse", *models, "-o", tmp_path / "f.onnx")
    assert outcome.status == 2
    assert said in outcome.complaint
    assert not (tmp_path / "f.onnx").exists()


def test_a_file_that_is_no_model_is_named(program: Program, tmp_path: Path) -> None:
    file = tmp_path / "no.onnx"
    file.write_bytes(b"PK\x03\x04 no model")
    outcome = program("fuse", file, "zoo:lenet", "-o", tmp_path / "f.onnx")
    assert outcome.status == 2
    assert "no.onnx" in outcome.complaint
    assert "zip archive" in outcome.complaint
