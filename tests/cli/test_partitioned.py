"""`run`, `simulate` and `bound` take scenarios whose models are cut."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cli.program import Program
from coinfer.policies import policy_names

CUT = """\
name: cut
models:
  cnn: {source: "zoo:tiny_cnn", deadline: 1s}
  mlp: {source: "zoo:tiny_mlp", partition: {mode: unit, minimum_subgraph_size: search}}
arrivals: {cnn: {poisson: 100/s}, mlp: {closed: 2}}
duration: 0.3s
warmup: 0.05s
partition: {minimum_subgraph_size: 1}
processors:
  - {name: npu, backend: openvino, units: [a], unsupported_ops: [GlobalAveragePool, Relu]}
  - {name: cpu, backend: onnxruntime, units: [b], unsupported_ops: [Conv]}
"""


def result_of(program: Program, verb: str, text: str, *options: str) -> dict[str, Any]:
    target = program.folder / "result.json"
    outcome = program(verb, program.scenario(text), "--json", target, *options)
    assert outcome.status == 0, outcome
    found: dict[str, Any] = json.loads(target.read_text())
    return found


@pytest.mark.parametrize(
    ("verb", "policy"),
    [
        *(("run", name) for name in policy_names() if name != "fixed"),
        ("simulate", "earliest_finish"),
        ("simulate", "heft"),
    ],
)
def test_every_policy_serves_models_that_no_processor_runs_whole(
    program: Program, verb: str, policy: str
) -> None:
    result = result_of(program, verb, CUT, "--policy", policy)
    for name, row in result["models"].items():
        assert row["completed"] > 0, name
        assert row["failed"] == row["dropped"] == 0, name
    assert all(row["executions"] > 0 for row in result["processors"].values())


def executions_per_request(result: dict[str, Any]) -> float:
    executions = sum(row["executions"] for row in result["processors"].values())
    return float(executions / result["totals"]["completed"])


@pytest.mark.alone
@pytest.mark.parametrize("verb", ["run", "simulate"])
def test_a_shorter_longest_span_makes_more_executions_of_a_request(
    program: Program, verb: str
) -> None:
    alone = """\
models: {cnn: "zoo:tiny_cnn"}
arrivals: {cnn: {closed: 1}}
duration: 0.3s
warmup: 0.05s
processors: [{name: cpu, backend: onnxruntime, units: [b]}]
"""
    whole = result_of(program, verb, alone + "partition: merged\n")
    short = result_of(program, verb, alone + "partition: {max_span: 1us}\n")
    assert executions_per_request(whole) < 1.2
    assert executions_per_request(short) > 2.0


def test_a_model_that_cannot_be_run_whole_is_refused_and_the_remedy_is_named(
    program: Program,
) -> None:
    text = CUT.replace("partition: {minimum_subgraph_size: 1}", "partition: whole")
    complaint = program("run", program.scenario(text)).complaint
    assert "cnn" in complaint
    assert "use mode merged" in complaint


@pytest.mark.parametrize("wanted", ["slowest", "cnn"])
def test_explain_says_where_the_spans_of_a_request_went(program: Program, wanted: str) -> None:
    outcome = program("run", program.scenario(CUT), "--explain", wanted)
    assert outcome.status == 0, outcome
    assert "completed after" in outcome.out
    assert "chosen; took" in outcome.out
    assert wanted == "slowest" or "of cnn: completed" in outcome.out


def test_what_cannot_be_explained_is_refused_before_the_run(program: Program) -> None:
    complaint = program("run", program.scenario(CUT), "--explain", "cn").complaint
    assert "unknown request to explain 'cn'" in complaint
    assert "cnn" in complaint
