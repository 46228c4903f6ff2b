"""`coinfer run` runs with every policy; its tables, JSON and trace agree; Ctrl-C keeps them."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cli.program import TINY, Outcome, Program
from coinfer.metrics.summary import Summary
from coinfer.policies import policy_names

LATENCIES = {"mean", "p50", "p90", "p95", "p99", "max"}
WAIT_S = 60.0


def result_of(program: Program, path: Path, *options: str) -> tuple[Outcome, dict[str, Any]]:
    target = program.folder / "result.json"
    outcome = program("run", path, "--json", target, *options)
    assert outcome.status == 0, outcome
    assert outcome.err == ""
    return outcome, json.loads(target.read_text())


@pytest.mark.parametrize("policy", policy_names())
def test_every_policy_runs_and_its_figures_add_up(program: Program, policy: str) -> None:
    text = TINY
    if policy == "fixed":
        text += "policy: {name: fixed, options: {assignment: {cnn: cpu0, mlp: cpu0}}}\n"
    outcome, data = result_of(program, program.scenario(text), "--policy", policy)
    assert data["policy"] == policy
    check_schema(data)
    check_identities(data)
    for name, row in data["models"].items():
        assert row["completed"] > 0, name
        assert f"{row['submitted']:,}" in outcome.out


def test_priorities_that_the_policy_hardly_looks_at_are_told_once(program: Program) -> None:
    text = f"{TINY.replace('deadline: 1s', 'priority: 5')}\nprocessors: {{preempt: false}}\n"
    options = ("--policy", "earliest_finish", "--policy-option", "boost_s=0.1")
    outcome, data = result_of(program, program.scenario(text), *options)
    warned = [text for text in data["warnings"] if "differ in priority" in text]
    assert len(warned) == 1
    assert (
        "policy earliest_finish hardly looks at; --policy earliest_finish or priority" in warned[0]
    )
    assert " ".join(outcome.out.split()).count(warned[0]) == 1


def check_schema(data: dict[str, Any]) -> None:
    assert data["mode"] == "run"
    assert (data["scenario"], data["seed"]) == ("tiny", 0)
    assert list(data["models"]) == ["cnn", "mlp"]
    assert data["environment"]["coinfer"]
    assert data["environment"]["backends"]["onnxruntime"]
    for row in data["models"].values():
        counts = {"submitted", "completed", "late", "dropped", "failed"}
        assert counts | {"throughput_per_s", "deadline_hit_rate", "latency_ms"} <= row.keys()
        assert row["latency_ms"].keys() == LATENCIES
    assert data["processors"]
    for row in data["processors"].values():
        assert {"backend", "units", "precision", "busy_fraction", "executions"} <= row.keys()
    assert {"submitted", "completed", "throughput_per_s"} <= data["totals"].keys()
    assert data["bound"].keys() == {"throughput_per_s", "fraction", "mix_of"}
    assert Summary.from_json(data).to_json() == data


def check_identities(data: dict[str, Any]) -> None:
    rows, totals = data["models"].values(), data["totals"]
    ends = ("completed", "dropped", "rejected", "failed", "cancelled", "unfinished")
    for row in rows:
        assert row["submitted"] == sum(row[end] for end in ends)
        assert row["late"] <= row["completed"]
        latency = row["latency_ms"]
        quantiles = [latency[key] for key in ("p50", "p90", "p95", "p99", "max")]
        assert quantiles == sorted(quantiles)
    for count in ("submitted", "completed"):
        assert totals[count] == sum(row[count] for row in rows)
    assert totals["throughput_per_s"] == pytest.approx(sum(r["throughput_per_s"] for r in rows))
    assert data["bound"]["fraction"] == pytest.approx(
        totals["throughput_per_s"] / data["bound"]["throughput_per_s"]
    )
    for unit in {unit for row in data["processors"].values() for unit in row["units"]}:
        busy = [row["busy_fraction"] for row in data["processors"].values() if unit in row["units"]]
        assert sum(busy) <= 1.0 + 1e-6
    assert data["models"]["cnn"]["deadline_hit_rate"] is not None
    assert data["models"]["mlp"]["deadline_hit_rate"] is None


def test_the_output_says_where_the_files_are(program: Program) -> None:
    trace = program.folder / ("long" * 30) / "trace.json"
    outcome, _ = result_of(program, program.scenario(), "--trace", str(trace))
    lines = outcome.out.splitlines()
    assert f"JSON: {program.folder / 'result.json'}" in lines
    assert f"trace: {trace} (open it at https://ui.perfetto.dev)" in lines


def test_piped_tables_are_not_squeezed(program: Program) -> None:
    text = TINY.replace("cnn", "a_rather_long_name_of_a_model")
    outcome = program(
        "run",
        program.scenario(text.replace("zoo:tiny_a_rather_long_name_of_a_model", "zoo:tiny_cnn")),
    )
    assert "a_rather_long_name_of_a_model" in outcome.out
    assert "…" not in outcome.out


def test_the_seed_decides_when_requests_are_due(program: Program) -> None:
    path = program.scenario(TINY.replace("mlp: {closed: 2}", "mlp: {gamma: 50/s, cv: 2}"))
    due = []
    for number, seed in enumerate(("5", "5", "6")):
        trace = program.folder / f"{number}.json"
        program("run", path, "--seed", seed, "--trace", trace)
        begun = [
            (event["name"], event["ts"])
            for event in json.loads(trace.read_text())["traceEvents"]
            if event["ph"] == "b"
        ]
        due.append([(name, pytest.approx(ts, abs=1.0)) for name, ts in begun])
        if number == 1:
            assert due[0] == begun
        if number == 2:
            assert due[0] != begun


@pytest.mark.parametrize("name", ["trace.json", "trace.json.gz"])
def test_every_slice_of_the_trace_ends(program: Program, name: str) -> None:
    path = program.folder / name
    program("run", program.scenario(), "--trace", path)
    content = path.read_bytes()
    events = json.loads(gzip.decompress(content) if name.endswith(".gz") else content)[
        "traceEvents"
    ]
    balance = Counter(
        (event["cat"], event["id"]) if event["ph"] == "b" else (event["cat"], event["id"], "end")
        for event in events
        if event["ph"] in "be"
    )
    assert balance
    assert set(balance.values()) == {1}
    assert sum(len(key) == 3 for key in balance) * 2 == len(balance)
    assert {event["ph"] for event in events} >= {"M", "X", "b", "e"}
    assert all(event["dur"] >= 0 for event in events if event["ph"] == "X")


def test_drops_and_deadlines_appear_in_the_table_and_the_json(program: Program) -> None:
    text = TINY.replace("deadline: 1s", "deadline: 20us, on_late: drop")
    outcome, data = result_of(program, program.scenario(text))
    row = data["models"]["cnn"]
    assert row["dropped"] > 0
    assert row["deadline_hit_rate"] < 1.0
    [line] = [line for line in outcome.out.splitlines() if line.strip().startswith("cnn ")]
    assert f" {row['dropped']} " in line
    assert line.rstrip().endswith("%")


def test_what_the_admission_limit_rejects_is_shown(program: Program) -> None:
    text = TINY.replace("poisson: 100/s", "periodic: 20000/s") + "admission_limit: 2\n"
    outcome, data = result_of(program, program.scenario(text), "--duration", "0.2s")
    rejected = data["models"]["cnn"]["rejected"]
    assert rejected > 0
    assert re.search(rf"cnn: {rejected:,} rejected", outcome.out)


def test_a_batch_of_several_samples_runs(program: Program) -> None:
    text = TINY.replace('"zoo:tiny_cnn"', '"zoo:tiny_cnn", batch: 3')
    _, data = result_of(program, program.scenario(text))
    assert data["models"]["cnn"]["completed"] > 0


class Running:
    """A run in a process of its own, which can be interrupted."""

    def __init__(self, folder: Path, cache: Path, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-c", _ANNOUNCING, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={**os.environ, "COINFER_CACHE": str(cache)},
        )

    def interrupt_when(self, announced: str) -> Outcome:
        killer = threading.Timer(WAIT_S, self._process.kill)
        killer.start()
        try:
            assert self._process.stdout is not None
            for line in self._process.stdout:
                if line.strip() == announced:
                    self._process.send_signal(signal.SIGINT)
                    break
            out, err = self._process.communicate()
        finally:
            killer.cancel()
        return Outcome(self._process.returncode, out, err)


_ANNOUNCING = """
import sys
from coinfer.profiling import measure
from coinfer.runtime import load_generator
from coinfer.cli import main

def announce(module, name, text, class_=None):
    owner = getattr(module, class_) if class_ else module
    original = getattr(owner, name)
    def announced(*args, **kwargs):
        print(text, flush=True)
        return original(*args, **kwargs)
    setattr(owner, name, announced)

announce(measure, "turn", "profiling", "Sampler")
announce(load_generator, "_submit_what_is_due", "running", "LoadGenerator")
main()
"""

needs_sigint = pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT to a process")


@pytest.mark.alone
@needs_sigint
def test_an_interrupted_run_shows_and_writes_what_there_is(
    program: Program, cache_folder: Path
) -> None:
    program("profile", "zoo:tiny_cnn", "zoo:tiny_mlp")
    path = program.scenario(TINY.replace("duration: 0.3s", "duration: 1h"))
    running = Running(
        program.folder, cache_folder, "run", str(path), "--json", "r.json", "--trace", "t.json"
    )
    outcome = running.interrupt_when("running")
    assert outcome.status == 130, outcome
    assert outcome.err == "coinfer: interrupted\n"
    assert "warning: interrupted" in outcome.out
    data = json.loads((program.folder / "r.json").read_text())
    assert data["duration_s"] < WAIT_S
    assert any("interrupted" in warning for warning in data["warnings"])
    assert not any(row["unfinished"] for row in data["models"].values())
    assert json.loads((program.folder / "t.json").read_text())["traceEvents"]


@pytest.mark.alone
@needs_sigint
def test_an_interrupted_profiling_ends_with_one_line(tmp_path: Path) -> None:
    running = Running(tmp_path, tmp_path / "cache", "profile", "zoo:small_resnet")
    outcome = running.interrupt_when("profiling")
    assert outcome.status == 130, outcome
    assert outcome.err == "coinfer: interrupted\n"
