"""`coinfer batch-plan`: what it prints and writes, and what it says of what cannot be planned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from cli.program import Program
from coinfer.graph.layer_batches.batch_path import find_batch_path
from coinfer.graph.layer_batches.layer_group import BatchProblem, LayerGroup, MemoryBudget

BRIEF = ("--requests", "3", "--pieces", "2")


def test_the_table_is_that_of_the_shortest_path(program: Program, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    done = program("batch-plan", "zoo:lenet", "--memory", "98%", *BRIEF, "--json", file)
    assert done.status == 0, done
    assert "3 requests on" in done.out
    for words in (
        "whole, batch 1 ",
        "chosen batches",
        "group by group",
        "exhaustive search",
        "plans",
    ):
        assert words in done.out
    report = json.loads(file.read_text())
    assert report["memory_bytes"] == int(0.98 * report["weight_bytes"])
    [model] = report["models"]
    assert [list(group["seconds"]) for group in model["groups"]] == [["1", "2", "3"]] * 2
    path = find_batch_path(_problem(model))
    assert model["seconds"] == pytest.approx(path.seconds)
    assert [group["batch"] for group in model["groups"]] == [each.batch for each in path.groups]
    assert model["seconds"] <= min(model["whole_network_s"].values()) * (1 + 1e-9)
    assert model["exhaustive_s"] == pytest.approx(model["seconds"])
    assert model["plans"] == 3 * 4
    # LeNet-5 has 61,706 parameters, and a sample of 32 x 32.
    assert 0 <= report["weight_bytes"] - 4 * 61_706 < 100
    assert model["groups"][0]["input_bytes"] == 4 * 32 * 32
    assert model["groups"][0]["output_bytes"] == model["groups"][1]["input_bytes"]
    assert model["groups"][-1]["output_bytes"] == 40


def test_a_longest_group_and_a_bandwidth_can_be_given(program: Program, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    done = program(
        *("batch-plan", "zoo:lenet", "--memory", "1MiB", "--max-span", "1us", "--requests", "2"),
        *("--bandwidth", "1MiB/s", "--json", file),
    )
    assert done.status == 0, done
    [model] = json.loads(file.read_text())["models"]
    assert len(model["groups"]) > 4
    assert model["load_bytes_per_s"] == 2**20
    assert model["load_s"] == 0.0
    # Memory for all: each weight is loaded once.
    assert model["cost"]["load_s"] == pytest.approx(4 * 61_706 / 2**20, rel=0.01)


def test_several_models_share_units_and_memory(program: Program, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    done = program(
        *("batch-plan", "zoo:lenet", "zoo:tiny_mlp", "--memory", "2MiB", *BRIEF, "--json", file)
    )
    assert done.status == 0, done
    assert "one by one: " in done.out
    report = json.loads(file.read_text())
    split = report["split"]
    ends = [share["seconds"] for share in split["one_by_one"].values()]
    assert split["one_by_one_s"] == pytest.approx(sum(ends))
    if split["side_by_side"]:
        used = [share["units"] for share in split["side_by_side"].values()]
        assert sum(used) <= max(map(int, report["processors"]))
        better = split["side_by_side_s"] < split["one_by_one_s"]
        assert split["chosen"] == ("side by side" if better else "one by one")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--memory", "50KiB", *BRIEF], "fc1 .. fc3 alone needs 233 KiB ("),
        (["--memory", "much"], "much"),
        (["--memory", "x%"], "--memory x% is no percentage; write e.g. 50%"),
        (["--memory", "0"], "--memory 0 leaves nothing"),
        (["--memory", "nan%"], "--memory nan% is no percentage"),
        (["--memory", "1MiB", "--bandwidth", "0"], "--bandwidth 0 is not above 0"),
        (["--memory", "1MiB", "--max-span", "0ms"], "max_span must be longer than 0"),
        (["--memory", "1MiB", "--processor", "cpu77"], "unknown processor 'cpu77'"),
        (["--memory", "1MiB", "--requests", "0"], "--requests"),
        ([], "--memory"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    program: Program, arguments: list[str], complaint: str
) -> None:
    done = program("batch-plan", "zoo:lenet", *arguments)
    assert done.status == 2
    assert complaint in done.complaint


@pytest.mark.parametrize(
    ("shapes", "complaint"),
    [
        ((["2", "3"], ["2", "3"]), "the model leaves no batch size open"),
        ((["N", "3"], ["3", "N"]), "its open first axis is no batch"),
    ],
)
def test_a_model_without_a_batch_is_told(
    program: Program, tmp_path: Path, shapes: tuple[list[str], list[str]], complaint: str
) -> None:
    transposes = shapes[0] != shapes[1]
    node = helper.make_node("Transpose" if transposes else "Relu", ["x"], ["y"])
    _save(tmp_path / "m.onnx", [node], *shapes)
    done = program("batch-plan", tmp_path / "m.onnx", "--memory", "1MiB")
    assert done.status == 2
    assert f"'m' cannot be run in batches: {complaint}" in done.complaint


def test_a_model_whose_answers_depend_on_the_company_is_told(
    program: Program, tmp_path: Path
) -> None:
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["top"], keepdims=1),
        helper.make_node("Sub", ["x", "top"], ["y"]),
    ]
    _save(tmp_path / "m.onnx", nodes, ["N", "3"], ["N", "3"])
    done = program("batch-plan", tmp_path / "m.onnx", "--memory", "1MiB")
    assert done.status == 2
    assert "'m' cannot be run in batches: " in done.complaint


def test_the_same_model_twice_is_refused(program: Program) -> None:
    done = program("batch-plan", "zoo:lenet", "zoo:lenet", "--memory", "1MiB")
    assert "two models are named 'lenet'" in done.complaint


def _save(file: Path, nodes: list[onnx.NodeProto], before: list[str], after: list[str]) -> None:
    def value(name: str, shape: list[str]) -> onnx.ValueInfoProto:
        dims = [int(size) if size.isdigit() else size for size in shape]
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, dims)

    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", before)],
        [value("y", after)],
        [numpy_helper.from_array(np.ones(1, np.float32), "unused")],
    )
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), file)


def _problem(model: dict[str, Any]) -> BatchProblem:
    kept = ("name", "weight_bytes", "input_bytes", "output_bytes", "inner_bytes")
    return BatchProblem(
        groups=[
            LayerGroup(
                **{name: group[name] for name in kept},
                seconds={int(batch): seconds for batch, seconds in group["seconds"].items()},
            )
            for group in model["groups"]
        ],
        requests=model["requests"],
        memory=MemoryBudget(
            bytes=model["memory_bytes"],
            load_bytes_per_s=model["load_bytes_per_s"],
            load_s=model["load_s"],
            copy_bytes_per_s=model["copy_bytes_per_s"],
        ),
    )
