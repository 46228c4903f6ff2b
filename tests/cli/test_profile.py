"""`coinfer profile` shows and writes what was measured, and says what does not run."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest

from cli.program import Program
from coinfer.hardware.catalogue import default_processors
from coinfer.machine.profile import Profile
from coinfer.testing.models import model_from_text, unsupported


def unsupported_file(folder: Path) -> Path:
    path = folder / "unsupported.onnx"
    ir.save(unsupported().graph, path)
    return path


def test_every_processor_gets_a_row_and_an_entry(program: Program) -> None:
    target = program.folder / "profile.json"
    outcome = program("profile", "zoo:tiny_mlp", "-o", target)
    assert (outcome.status, outcome.err) == (0, "")
    names = {processor.name for processor in default_processors()}
    assert {key.processor for key, _ in Profile.load(target)} == names
    assert all(name in outcome.out for name in names)
    assert f"profile: {target}" in outcome.out


def test_every_batch_gets_an_entry(program: Program) -> None:
    target = program.folder / "profile.json"
    options = ("--backend", "onnxruntime", "--batch", "1", "--batch", "4", "--batch", "4")
    program("profile", "zoo:tiny_mlp", *options, "-o", target)
    found = Profile.load(target)
    assert {key.batch for key in found.entries} == {1, 4}
    assert found.processors() == tuple(p.name for p in default_processors(["onnxruntime"]))


def test_a_scenario_stands_for_its_models(program: Program) -> None:
    outcome = program("profile", program.scenario(), "--backend", "onnxruntime")
    assert outcome.status == 0
    assert "cnn" in outcome.out
    assert "mlp" in outcome.out


def test_the_cache_is_used_unless_a_fresh_profile_is_wanted(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COINFER_CACHE", str(tmp_path / "own"))
    arguments = ("profile", "zoo:tiny_mlp", "--backend", "onnxruntime", "-o")
    paths = [program.folder / f"{number}.json" for number in range(3)]
    program(*arguments, paths[0])
    program(*arguments, paths[1])
    program(*arguments, paths[2], "--fresh")
    first, second, fresh = map(Profile.load, paths)
    assert first == second
    assert first != fresh


def test_a_piped_table_is_not_squeezed(program: Program) -> None:
    assert "…" not in program("profile", "zoo:tiny_mlp").out


def test_a_model_that_nothing_runs_is_an_error_with_the_reasons(program: Program) -> None:
    path = unsupported_file(program.folder)
    outcome = program("profile", path)
    assert outcome.status == 1
    assert outcome.err.startswith("coinfer: error: no processor runs model 'unsupported': ")
    assert outcome.err.count("\n") == 1
    assert "Nothing" in outcome.err


def test_a_model_that_runs_is_shown_beside_one_that_does_not(program: Program) -> None:
    path = unsupported_file(program.folder)
    outcome = program("profile", "zoo:tiny_mlp", path, "--backend", "onnxruntime")
    assert outcome.status == 1
    assert "tiny_mlp" in outcome.out
    assert "skipped: model 'unsupported' on processor 'cpu0'" in outcome.out


def test_a_processor_whose_answers_are_wrong_is_named_and_left_out(program: Program) -> None:
    pytest.importorskip("openvino")
    path, target = program.folder / "hash.onnx", program.folder / "profile.json"
    text = """g (int64[n] ids) => (int64[n] h) <int64 k = {2654435761}, int64 size = {1000}>
        { p = Mul(ids, k)  h = Mod(p, size) }"""
    ir.save(model_from_text(text, name="hash").graph, path)
    outcome = program("profile", path, "-o", target)
    assert outcome.status == 0
    assert "warning: hash must not run on ov0: int64 is computed in 32 bits there" in outcome.out
    written = Profile.load(target)
    assert "cpu0" in written.processors()
    assert "ov0" not in written.processors()
    shown = program("plan", path, "--why").out
    assert "hash, agreement: within 0.001 of onnxruntime" in shown
    assert "  not ov0: int64 is computed in 32 bits there" in shown
    assert "warning: hash does not run on ov0" in shown
