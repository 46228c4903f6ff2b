from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import onnx.parser
import pytest
import typer
from onnx import TensorProto, helper
from typer.testing import CliRunner, Result

from coinfer import zoo
from coinfer.cli.inspect import inspect
from coinfer.errors import ConfigurationError, ModelError, UnknownNameError
from coinfer.planner.model_source import resolve_model

app = typer.Typer()
app.command()(inspect)


def run(*args: str) -> Result:
    result = CliRunner().invoke(app, list(args))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def report(*args: str) -> dict[str, Any]:
    return json.loads(run(*args, "--json", "-").stdout)


def test_shows_specs_fingerprint_and_costs() -> None:
    output = run("zoo:tiny_cnn").stdout
    model = resolve_model("zoo:tiny_cnn")
    for part in (
        "image: float32[batch,3,32,32]",
        "ai.onnx",
        f"{zoo.spec('tiny_cnn').parameters:,} trainable",
        f"{zoo.spec('tiny_cnn').macs:,}",
        model.fingerprint.structure,
        model.fingerprint.weights,
    ):
        assert part in output


def test_json_goes_alone_to_standard_output() -> None:
    found = report("zoo:tiny_mlp")
    assert found["name"] == "tiny_mlp"
    assert found["trainable_parameters"] == zoo.spec("tiny_mlp").parameters
    assert found["macs"] == zoo.spec("tiny_mlp").macs
    assert found["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["batch", 16]}]


def test_an_input_with_a_default_is_optional(tmp_path: Path) -> None:
    import onnx

    path = tmp_path / "m.onnx"
    text = "g (float[N,3] x, float[3] s = {1, 2, 3}) => (float[N,3] y) { y = Add(x, s) }"
    onnx.save(onnx.parser.parse_model('<ir_version: 8, opset_import: ["" : 17]>' + text), path)
    assert "s: float32[3] (optional)" in run(str(path)).stdout
    assert [each.get("optional") for each in report(str(path))["inputs"]] == [None, True]
    assert report(str(path))["parameters"] == 0


def test_json_goes_to_a_file_beside_the_table(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    output = run("zoo:tiny_mlp", "--json", str(path)).stdout
    assert "Operators by type" in output
    assert json.loads(path.read_text()) == report("zoo:tiny_mlp")


def test_types_add_up_to_the_model() -> None:
    found = report("zoo:tiny_branchy")
    types, operators = found["operator_types"], found["operators"]
    assert sum(row["count"] for row in types) == len(operators)
    assert sum(row["macs"] for row in types) == found["macs"]
    assert sum(row["parameters"] for row in types) == found["trainable_parameters"]
    assert sum(row["macs_share"] for row in types) == pytest.approx(1.0, rel=1e-12)


def test_every_operator_is_listed_on_request() -> None:
    names = [row["name"] for row in report("zoo:tiny_mlp")["operators"]]
    short, long = run("zoo:tiny_mlp").stdout, run("zoo:tiny_mlp", "--operators").stdout
    assert all(name in long for name in names)
    assert "Operators in the order of the graph" not in short


def test_costs_grow_with_the_batch() -> None:
    one, four = report("zoo:tiny_cnn"), report("zoo:tiny_cnn", "--batch", "4")
    assert four["macs"] == 4 * one["macs"]
    assert four["weight_bytes"] == one["weight_bytes"]


def test_a_file_is_inspected_like_its_network(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(resolve_model("zoo:tiny_mlp").to_bytes())
    found, built = report(str(path)), report("zoo:tiny_mlp")
    assert found["source"] == str(path)
    assert found["fingerprint"] == built["fingerprint"]
    assert found["operator_types"] == built["operator_types"]


@pytest.fixture
def open_length(tmp_path: Path) -> Path:
    """x[N,T,4] @ w[4,2], with markup where names may hold it, and an operator of another domain."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"], name="[bold]dense"),
            helper.make_node("Mystery", ["h"], ["y"], name="odd", domain="com.example"),
        ],
        "g",
        [info("x", TensorProto.FLOAT, ["N", "T", 4])],
        [info("y", TensorProto.FLOAT, ["N", "T", 2])],
        [helper.make_tensor("w", TensorProto.FLOAT, [4, 2], [1.0] * 8)],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    path = tmp_path / "open.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def test_open_dimensions_can_be_given(open_length: Path) -> None:
    known = report(str(open_length), "--dim", "T=5", "--batch", "2")
    assert known["known_macs"] == 2 * 5 * 4 * 2


def test_what_is_unknown_is_said_and_not_counted_as_nothing(open_length: Path) -> None:
    assert report(str(open_length), "--dim", "T=5")["macs"] is None
    output = run(str(open_length), "--dim", "T=5", "--operators").stdout
    assert "at least 40; unknown for 1 operators, first 'odd'" in output
    assert "give sizes" not in output


def test_what_is_unknown_for_want_of_a_size_names_the_option(open_length: Path) -> None:
    output = run(str(open_length)).stdout
    assert "unknown for 2 operators, first '[bold]dense'; give sizes: --dim T=SIZE" in output
    assert report(str(open_length))["unset_dims"] == ["T"]


@pytest.fixture
def branching(tmp_path: Path) -> Path:
    """If c: x[2,3] @ w[3,3], or else x @ v[3,5]; with 100 stored numbers that nothing uses."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        g (bool c, float[2,3] x, float[3,3] w, float[3,5] v) => (float[2,k] y)
        { y = If (c) <then_branch = t () => (float[2,3] a) { a = MatMul(x, w) },
          else_branch = e () => (float[2,5] b) { b = MatMul(x, v) }> }"""
    )
    model.graph.initializer.append(
        helper.make_tensor("idle", TensorProto.FLOAT, [100], [0.0] * 100)
    )
    path = tmp_path / "branching.onnx"
    onnx.save(model, path)
    return path


def test_macs_that_the_inputs_decide_are_shown_as_a_range(branching: Path) -> None:
    found = report(str(branching))
    figures = ("macs", "known_macs", "most_macs")
    assert [found[name] for name in figures] == [None, 18, 30]
    assert [found["operators"][0][name] for name in figures] == [None, 18, 30]
    assert found["unknown_operators"] == []
    output = run(str(branching)).stdout
    assert "18 to 30, as the inputs decide" in output
    assert "18 to 30 " in output.partition("Operators by type")[2]


def test_tensors_that_nothing_uses_are_stored(branching: Path) -> None:
    assert report(str(branching))["parameters"] == 100
    assert "0 trainable, 100 stored" in run(str(branching)).stdout


def test_names_are_printed_as_they_are(open_length: Path) -> None:
    assert "[bold]dense" in run(str(open_length), "--operators").stdout


@pytest.mark.parametrize("text", ["T", "T=", "=3", "T=0", "T=x"])
def test_a_malformed_dimension_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="write NAME=SIZE"):
        run("zoo:tiny_mlp", "--dim", text)


def test_a_dimension_that_the_model_lacks_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="sequence"):
        run("zoo:tiny_mlp", "--dim", "sequence=3")


def test_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        run(str(tmp_path / "no.onnx"))


def test_an_unwritable_json_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot write"):
        run("zoo:tiny_mlp", "--json", str(tmp_path / "no" / "out.json"))


def test_a_model_behind_links_is_shown_if_their_folder_is_allowed(tmp_path: Path) -> None:
    [made] = zoo.export(["tiny_cnn"], tmp_path / "made")
    hub = tmp_path / "hub"
    (hub / "blobs").mkdir(parents=True)
    (hub / "snapshots").mkdir()
    model, weights = hub / "blobs" / "1.onnx", "weights.bin"
    onnx.save(
        *(onnx.load(made), model), save_as_external_data=True, location=weights, size_threshold=0
    )
    (hub / "snapshots" / "net.onnx").symlink_to("../blobs/1.onnx")
    (hub / "snapshots" / weights).symlink_to("../blobs/weights.bin")
    with pytest.raises(ModelError, match="--allow-data-in FOLDER"):
        run(str(hub / "snapshots" / "net.onnx"))
    found = report(str(hub / "snapshots" / "net.onnx"), "--allow-data-in", str(hub))
    assert found["macs"] == zoo.spec("tiny_cnn").macs
    assert found["fingerprint"] == report(str(made))["fingerprint"]
