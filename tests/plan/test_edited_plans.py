"""Edits by hand that would give wrong numbers or failing requests are refused where they stand."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

import onnx
import pytest
from tests.plan.test_plan_folder import CPU, edited, saved

import coinfer
from coinfer.errors import ConfigurationError, ModelError, ScenarioError
from coinfer.graph.partition_options import Mode, PartitionOptions
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.model import load_model
from coinfer.plan.plan_folder import load_plan, save_plan
from coinfer.planner.make_plan import given_plan, make_plan
from coinfer.planner.model_source import resolve_model
from coinfer.planner.opened_plan import open_plan, read_plan
from coinfer.planner.wishes import CutWish, Wishes
from coinfer.profiling import Effort, Profiler
from coinfer.testing.models import model_from_text

BF16 = Processor(name="low", backend="onnxruntime", units=frozenset({"core0"}), precision="bf16")
NO_RELU = Processor(
    name="partial",
    backend="onnxruntime",
    units=frozenset({"core0"}),
    unsupported_ops=frozenset({"Relu"}),
)
QUICK = Profiler(effort=Effort(warmup_runs=0, min_runs=2, max_runs=2))


def cut(folder: Path, *processors: Processor) -> None:
    """Save a plan of a network in several units, all of which `cpu` runs."""
    options = PartitionOptions(mode=Mode.UNIT, pieces=3, minimum_subgraph_size=1)
    planned = make_plan(
        {"m": resolve_model("zoo:tiny_cnn")},
        [CPU, *processors],
        Wishes(cuts={"m": CutWish(options)}, sources={"m": "zoo:tiny_cnn"}, keep_all=True),
        QUICK,
    )
    save_plan(planned.plan, folder / "plan")


def whole(folder: Path, *processors: Processor) -> None:
    """Save a plan of a network that only `cpu` loads, with the others in the machine."""
    profile = Profile({ProfileKey("m", "cpu", 1): Measurement(seconds=(0.001,))})
    planned = given_plan(
        {"m": resolve_model("zoo:tiny_cnn")},
        [CPU, *processors],
        profile,
        Wishes(sources={"m": "zoo:tiny_cnn"}),
    )
    save_plan(planned.plan, folder / "plan")


def loads(folder: Path, row: str) -> None:
    """Write what is loaded anew: one line below `processors`."""
    edited(
        folder,
        lambda text: re.sub(
            r"(        processors:\n)(          .*\n)+", rf"\1          {row}\n", text
        ),
    )


@pytest.mark.parametrize("reads", [read_plan, open_plan])
def test_spans_that_do_not_lead_to_the_end_are_refused(tmp_path: Path, reads) -> None:
    cut(tmp_path)
    n_units = load_plan(tmp_path / "plan").plan.models["m"].original.n_units
    assert n_units > 2
    loads(tmp_path, f"cpu: [0, 2-{n_units - 1}]")
    with pytest.raises(ScenarioError, match=r"plan\.yaml:\d+: .*no span begins with unit 1"):
        reads(tmp_path / "plan")


def test_whole_means_all_units_of_a_model_that_is_cut(tmp_path: Path) -> None:
    cut(tmp_path)
    loads(tmp_path, "cpu: whole")
    model = resolve_model("zoo:tiny_cnn")
    feed = model.sample_inputs()
    with coinfer.Engine(tmp_path / "plan") as engine:
        assert engine.infer("m", feed).keys() == {spec.name for spec in model.outputs}
    [spans] = load_plan(tmp_path / "plan").plan.models["m"].original.spans.values()
    n_units = load_plan(tmp_path / "plan").plan.models["m"].original.n_units
    assert spans == ((0, n_units - 1),)


@pytest.mark.parametrize("reads", [read_plan, open_plan])
def test_a_fork_whose_sides_need_each_other_is_refused(tmp_path: Path, reads) -> None:
    cut(tmp_path)
    n_units = load_plan(tmp_path / "plan").plan.models["m"].original.n_units
    units = ", ".join(map(str, range(n_units)))
    loads(tmp_path, f"cpu: [{units}]")
    edited(
        tmp_path,
        lambda t: t.replace(
            "        processors:", "        forks: [[0, 1, 1]]\n        processors:"
        ),
    )
    with pytest.raises(ConfigurationError, match=r"reads what operator .* makes on the other side"):
        reads(tmp_path / "plan")


@pytest.mark.parametrize("fork", ["[0, 1, 2]", "[0, 5, 99]", "[-3, -2, -1]"])
def test_a_fork_of_spans_that_are_not_loaded_is_refused(tmp_path: Path, fork: str) -> None:
    cut(tmp_path)
    n_units = load_plan(tmp_path / "plan").plan.models["m"].original.n_units
    loads(tmp_path, f"cpu: [{', '.join(map(str, range(n_units)))}]")
    edited(
        tmp_path,
        lambda t: t.replace("        processors:", f"        forks: [{fork}]\n        processors:"),
    )
    with pytest.raises(ScenarioError, match=r"plan\.yaml:\d+: .*forks"):
        read_plan(tmp_path / "plan")


@pytest.mark.parametrize("reads", [read_plan, open_plan])
def test_what_was_not_measured_below_fp32_does_not_run_there(tmp_path: Path, reads) -> None:
    whole(tmp_path, BF16)
    edited(
        tmp_path,
        lambda t: t.replace("          cpu: whole", "          low: whole\n          cpu: whole"),
    )
    with pytest.raises(ConfigurationError, match=r"plan\.yaml:\d+: 'm' was not measured on 'low'"):
        reads(tmp_path / "plan")


def test_no_processor_gets_operators_that_it_declares_not_to_run(tmp_path: Path) -> None:
    cut(tmp_path, NO_RELU)
    n_units = load_plan(tmp_path / "plan").plan.models["m"].original.n_units
    loads(tmp_path, f"partial: [0-{n_units - 1}]")
    with pytest.raises(ConfigurationError, match=r"'m' must not run there: .*does not run Relu"):
        open_plan(tmp_path / "plan")


@pytest.mark.parametrize("reads", [read_plan, open_plan])
def test_units_may_be_written_into_a_plan_that_was_whole(tmp_path: Path, reads) -> None:
    whole(tmp_path)
    cut(tmp_path / "cut")
    units = re.search(
        r"        units:\n(?:          - .*\n)+",
        (tmp_path / "cut" / "plan" / "plan.yaml").read_text(),
    )
    assert units
    n_units = units[0].count("operators:")
    edited(tmp_path, lambda t: t.replace("        processors:", f"{units[0]}        processors:"))
    loads(tmp_path, f"cpu: [{', '.join(map(str, range(n_units)))}]")
    result = reads(tmp_path / "plan")
    plan = result if reads is read_plan else result.plan
    seconds = [entry.mean_s for _, entry in plan.profile]
    assert all(entry.estimated for _, entry in plan.profile)
    assert 0.0009 < sum(seconds) < 0.002  # a millisecond, and what the borders cost


@pytest.mark.parametrize("reads", [read_plan, open_plan])
def test_a_batch_size_that_was_not_measured_is_refused(tmp_path: Path, reads) -> None:
    whole(tmp_path)
    edited(tmp_path, lambda t: t.replace("    batch: 1", "    batch: 4"))
    with pytest.raises(ConfigurationError, match=r"plan\.yaml:\d+: 'm' was measured at batch 1"):
        reads(tmp_path / "plan")


def test_a_cut_that_cannot_be_made_is_said_with_its_line(tmp_path: Path) -> None:
    cut(tmp_path)
    edited(tmp_path, lambda t: re.sub("first: [^}]+", "first: nobody", t, count=1))
    with pytest.raises(ConfigurationError, match=r"plan\.yaml:\d+: unit 0 of .* 'nobody'"):
        open_plan(tmp_path / "plan")


def test_a_fixed_batch_is_part_of_the_plan(tmp_path: Path) -> None:
    rows = model_from_text(
        "agraph (float[4,3] x) => (float[4,3] y) { y = Softmax <axis = 0> (x) }", name="m"
    )  # depend on each other
    onnx.save(onnx.load_from_string(rows.to_bytes()), tmp_path / "m.onnx")
    wishes = Wishes(sources={"m": str(tmp_path / "m.onnx")}, batches={"m": 4})
    planned = make_plan({"m": load_model(tmp_path / "m.onnx", name="m")}, [CPU], wishes, QUICK)
    save_plan(planned.plan, tmp_path / "plan")
    found = read_plan(tmp_path / "plan").models["m"]
    assert found.fixed_batch
    assert found.batch == 1


def test_a_missing_model_is_said_with_the_line_that_names_it(tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "m.onnx").unlink()
    with pytest.raises(ModelError, match=r"plan\.yaml:\d+: model file .* does not exist.*make it"):
        open_plan(tmp_path / "plan")


def test_times_of_a_processor_that_there_is_not_are_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    path = tmp_path / "plan" / "profiles" / "m.json"
    before = path.read_bytes()
    path.write_bytes(before.replace(b'"cpu"', b'"gpu"'))
    old, new = (sha256(data).hexdigest()[:16] for data in (before, path.read_bytes()))
    edited(tmp_path, lambda text: text.replace(old, new))
    with pytest.raises(ConfigurationError, match="has times of processor 'gpu', which the machine"):
        read_plan(tmp_path / "plan")


def test_a_processor_where_the_answers_were_wrong_cannot_be_added(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    ov = Processor(name="ov", backend="openvino", units=frozenset({"core0"}))
    onnx.save(
        onnx.parser.parse_model(
            """<ir_version: 10, opset_import: ["": 20]>
            g (double[n] x) => (double[n] y) { y = Exp(x) }"""
        ),
        tmp_path / "m.onnx",
    )
    model = load_model(tmp_path / "m.onnx", name="m")
    wishes = Wishes(sources={"m": str(tmp_path / "m.onnx")}, keep_all=True)
    save_plan(make_plan({"m": model}, [CPU, ov], wishes, QUICK).plan, tmp_path / "plan")
    line = "          cpu: whole"
    edited(tmp_path, lambda text: text.replace(line, f"          ov: whole\n{line}"))
    with pytest.raises(ConfigurationError, match="must not run on 'ov': float64 is computed in 32"):
        open_plan(tmp_path / "plan")
