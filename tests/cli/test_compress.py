"""`coinfer compress`: what it prints and writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from coinfer.cli.compress import compress
from coinfer.errors import ConfigurationError
from coinfer.graph.cost import operator_costs, total
from coinfer.model import load_model

pytest.importorskip("tensorly", reason="decomposing needs tensorly")

app = typer.Typer()
app.command()(compress)


def run(*args: str) -> str:
    result = CliRunner().invoke(app, list(args))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_without_a_file_ranks_are_chosen_and_counted() -> None:
    shown = run("zoo:vgg16", "--ranks", "ratio:0.32")
    assert "15,470,264,320 -> " in shown
    assert "(81." in shown
    assert "held-out" not in shown


def test_the_file_and_the_report_agree(tmp_path: Path) -> None:
    path, report = tmp_path / "small.onnx", tmp_path / "report.json"
    shown = run("zoo:tiny_cnn", "--ranks", "ratio:0.5", "-o", str(path), "--json", str(report))
    read = json.loads(report.read_text())
    assert total(operator_costs(load_model(path).graph)).macs == read["macs"][1]
    assert f"{read['macs'][1]:,}" in shown
    assert "no samples were given" in shown
    assert read["format"] == "coinfer-compression/1"
    assert [row["ms"][0] > 0 for row in read["processors"]]


def test_one_sample_that_judges_is_said_in_the_singular(tmp_path: Path) -> None:
    inputs = tmp_path / "two.npz"
    np.savez(inputs, image=np.ones((2, 3, 32, 32), np.float32))
    args = ("--ranks", "ratio:0.5", "--inputs", str(inputs), "-o", str(tmp_path / "small.onnx"))
    shown = run("zoo:tiny_cnn", *args)
    assert " on 1 held-out sample\n" in shown
    assert "1 sample judges; the error says little of others" in " ".join(shown.split())


def test_only_what_is_measured_is_drawn(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--picture"):
        run("zoo:tiny_cnn", "--ranks", "ratio:0.5", "--picture", str(tmp_path / "p.svg"))


def test_int8_is_said_and_written(tmp_path: Path) -> None:
    path, report = tmp_path / "int8.onnx", tmp_path / "report.json"
    args = ("zoo:tiny_cnn", "--int8", "--max-error", "inf")
    shown = run(*args, "-o", str(path), "--json", str(report))
    read = json.loads(report.read_text())
    types = {node.op_type for node in load_model(path).graph.graph}
    if read["int8"] is None:  # it is the original, which is faster here
        assert "nothing is quantised" in shown
        assert "QuantizeLinear" not in types
        assert "left as it is: in int8 it is not surely faster" in shown
    else:
        assert "heavy layers in int8" in shown
        assert "QuantizeLinear" in types
        assert all(row["interval"][0] > 1 for row in read["processors"])
    assert "Collecting tensor data" not in shown


@pytest.mark.parametrize("more", [("--ranks", "ratio:0.5"), ("--svd",), ("--plain",)])
def test_int8_takes_no_ranks(more: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError, match="int8 decomposes nothing"):
        run("zoo:tiny_cnn", "--int8", *more)
    with pytest.raises(ConfigurationError, match="leave it out with --int8"):
        run("zoo:tiny_cnn", "--int8", "--picture", "p.svg")


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (("--max-error", "0.1", "--plain"), "--max-error, --plain"),
        (("--inputs", "x.npz"), "--inputs"),
        (("--processor", "cpu0"), "--processor"),
        (("--seed", "3"), "--seed"),
    ],
)
def test_options_that_would_do_nothing_without_a_file_are_refused(
    more: tuple[str, ...], named: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"without -o .* {named} would change nothing"):
        run("zoo:tiny_cnn", "--ranks", "ratio:0.5", *more)
