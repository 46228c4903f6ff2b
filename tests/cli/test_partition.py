"""`coinfer partition`: what it prints, draws and writes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import onnx
import pytest
from onnx import TensorProto, helper

from cli.program import Program

GAPS = """\
processors:
- {name: cpu, backend: onnxruntime, cores: [0]}
- {name: npu, backend: imagined, units: [npu], unsupported_ops: [Concat, MaxPool]}
"""

MACHINE = """\
processors: {cpu: {}, npu: {supported_ops: [Conv, Relu]}}
times: {net: {cpu: 2ms}}
"""

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def gaps(program: Program) -> Path:
    return program.scenario(GAPS, "gaps.yaml")


def test_shows_support_units_and_the_bytes_between_them(program: Program, gaps: Path) -> None:
    done = program(
        "partition", "zoo:tiny_branchy", "--processors", gaps, "--minimum-subgraph-size", "1"
    )
    assert done.status == 0
    assert "17 operators in 3 units, mode merged, 6 spans that may run" in done.out
    rows = [" ".join(line.split()) for line in done.out.splitlines()]
    assert "cpu onnxruntime 17 of 17 asked -" in rows
    assert "npu imagined 16 of 17 declared Concat 1" in rows
    assert any(row.startswith("1 1 Concat 1 cpu 0 2 16 KiB") for row in rows)


def test_json_holds_all_of_it(program: Program, gaps: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    program(
        *("partition", "zoo:tiny_branchy", "--processors", gaps, "--mode", "unit"),
        *("--minimum-subgraph-size", "1", "--json", file),
    )
    found = json.loads(file.read_text())
    assert found["mode"] == "unit"
    assert found["processors"][1]["unsupported_types"] == {"Concat": 1}
    assert [unit["processors"] for unit in found["units"]] == [
        ["cpu", "npu"],
        ["cpu"],
        ["cpu", "npu"],
    ]
    assert found["units"][2]["reads_from"] == [1]
    assert sum(len(unit["operators"]) for unit in found["units"]) == found["operators"] == 17
    assert sum(unit["cost_share"] for unit in found["units"]) == pytest.approx(1)
    assert [(span["first"], span["last"]) for span in found["spans"]] == [(0, 0), (1, 1), (2, 2)]


def test_the_drawing_has_a_box_per_operator_and_a_line_per_dependency(
    program: Program, gaps: Path, tmp_path: Path
) -> None:
    file = tmp_path / "out.svg"
    done = program(
        *("partition", "zoo:tiny_branchy", "--processors", gaps, "--svg", file),
        *("--minimum-subgraph-size", "1"),
    )
    assert f"drawing: {file}" in done.out
    root = ElementTree.parse(file).getroot()
    boxes = [each for each in root.iter(f"{SVG}rect") if each.get("class") == "box"]
    assert len(boxes) == 17
    assert len({box.get("fill") for box in boxes}) == 2
    over = [each for each in root.iter(f"{SVG}path") if each.get("class") == "over"]
    assert sorted(line.find(f"{SVG}title").text for line in over) == [
        "concat.out: 16 KiB, unit 1 to 2",
        "concat.out: 16 KiB, unit 1 to 2",
        "left.relu.out: 8 KiB, unit 0 to 1",
        "right.relu.out: 8 KiB, unit 0 to 1",
    ]


def test_without_a_file_the_processors_of_this_machine_are_asked(program: Program) -> None:
    done = program("partition", "zoo:tiny_mlp")
    assert done.status == 0
    assert "cpu0" in done.out
    assert "in 1 unit," in done.out


def test_pieces_and_a_longest_span_cut_further(program: Program, gaps: Path) -> None:
    done = program("partition", "zoo:tiny_cnn", "--processors", gaps, "--pieces", "3")
    assert "9 operators in 3 units" in done.out
    done = program("partition", "zoo:tiny_cnn", "--processors", gaps, "--max-span", "0.001us")
    assert "9 operators in 9 units" in done.out


def test_a_machine_file_says_what_its_processors_support(program: Program) -> None:
    machine = program.scenario(MACHINE, "machine.yaml")
    done = program(
        "partition", "zoo:tiny_branchy", "--processors", machine, "--minimum-subgraph-size", "1"
    )
    assert "imagined 17 of 17 declared" in " ".join(done.out.split())
    assert "imagined 9 of 17 declared" in " ".join(done.out.split())


def test_branches_are_cut_off_and_named(program: Program, tmp_path: Path) -> None:
    written = tmp_path / "partition.json"
    done = program(
        *("partition", "zoo:tiny_branchy", "--processors", program.scenario(GAPS, "p.yaml")),
        *("--branches", "--json", written),
    )
    assert "units that may run at the same time: 1 beside 2, 5 beside 6" in done.out
    assert json.loads(written.read_text())["forks"] == [
        {"first": 1, "middle": 2, "last": 2},
        {"first": 5, "middle": 6, "last": 6},
    ]


def test_a_scenario_says_which_processors_there_are(program: Program) -> None:
    scenario = program.scenario(
        "models: {net: 'zoo:lenet'}\narrivals: {net: {closed: 1}}\n" + GAPS, "scenario.yaml"
    )
    done = program("partition", "zoo:tiny_branchy", "--processors", scenario)
    assert "16 of 17" in done.out


def test_a_machine_of_the_library_can_be_named(program: Program) -> None:
    done = program("partition", "zoo:tiny_mlp", "--processors", "lib:tinker-edge-r")
    assert done.status == 0


@pytest.mark.parametrize(
    ("arguments", "text", "complaint"),
    [
        (["--mode", "merge"], GAPS, "unknown mode 'merge'. Did you mean 'merged'?"),
        ([], "processors:\n- {name: a, backend: x, cores: [0]}\n", "unknown backend 'x'"),
        ([], "processor: default\n", "unknown field 'processor'; did you mean 'processors'?"),
        (
            [],
            GAPS.replace("MaxPool", "MaxPol"),
            "unknown operator 'MaxPol'; did you mean 'MaxPool'?",
        ),
        (
            [],
            GAPS.replace("cores: [0]", "cores: [0], supported_ops: [Add], unsupported_ops: [Mul]"),
            "unsupported_ops: cannot stand beside `supported_ops`; keep one",
        ),
        (
            [],
            GAPS.replace("cores: [0]", "cores: [0], supported_ops: [Conv]"),
            "runs on none of the processors: cpu, npu",
        ),
        (["--max-span", "1ms"], MACHINE, "--max-span needs a processor here that runs all"),
        (["--max-span", "0ms"], GAPS, "max_span must be longer than 0"),
        (["--mode", "whole", "--branches"], GAPS, "use unit or merged with `branches`"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    program: Program, arguments: list[str], text: str, complaint: str
) -> None:
    file = program.scenario(text, "file.yaml")
    done = program(
        *("partition", "zoo:tiny_branchy", "--processors", file, *arguments),
        *("--minimum-subgraph-size", "1"),
    )
    assert complaint in done.complaint


def test_a_file_that_is_not_there_is_named(program: Program) -> None:
    done = program("partition", "zoo:tiny_mlp", "--processors", "nowhere.yaml")
    assert "nowhere.yaml: no such file of processors" in done.complaint


def test_sizes_of_minus_one_are_shown_as_unknown(
    program: Program, gaps: Path, tmp_path: Path
) -> None:
    def value(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [-1, 3, -1, -1])

    nodes = [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Neg", ["h"], ["y"])]
    graph = helper.make_graph(nodes, "g", [value("x")], [value("y")], value_info=[value("h")])
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "m.onnx")
    done = program("partition", tmp_path / "m.onnx", "--processors", gaps, "--pieces", "2")
    assert done.status == 0
    rows = [line.split() for line in done.out.splitlines()]
    assert ["1", "1", "Neg", "1", "cpu,", "npu", "0", "1", "?", "50.0%"] in rows
    shown = program("inspect", tmp_path / "m.onnx")
    assert "x: float32[?,3,?,?]" in shown.out
    assert "? activations at the peak" in shown.out
    assert not re.search(r"(?<!\w)-\d", done.out + shown.out)  # no negative number
