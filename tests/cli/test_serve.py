"""`coinfer serve`: what is wrong is said in one line, before anything is loaded."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from cli.program import Program
from coinfer.cli.serve import _Sources
from coinfer.experiments.policy_controller import Verdict
from coinfer.plan.choice import Choice
from coinfer.plan.plan import PolicyChoice
from coinfer.server.opening import Opened
from coinfer.testing.models import tiny_linear

pytest.importorskip("uvicorn")


def repository(folder: Path) -> Path:
    path = folder / "models" / "linear" / "1"
    path.mkdir(parents=True)
    ir.save(tiny_linear().model.graph, path / "model.onnx")
    return folder / "models"


FREE = ("--http", "0", "--grpc", "-1", "--metrics", "-1")


def test_nothing_to_serve(program: Program) -> None:
    assert "nothing to serve" in program("serve").complaint


def test_an_empty_repository(program: Program) -> None:
    folder = program.folder / "empty"
    folder.mkdir()
    failed = program("serve", folder, *FREE)
    assert (failed.status, "is empty" in failed.complaint) == (2, True)
    failed = program("serve", program.folder / "absent", *FREE)
    assert "No such file" in failed.complaint


def test_a_model_without_a_version(program: Program) -> None:
    (program.folder / "models" / "m").mkdir(parents=True)
    assert "has no version to serve" in program("serve", program.folder / "models").complaint


def test_a_broken_model_is_named(program: Program) -> None:
    models = repository(program.folder)
    (models / "linear" / "1" / "model.onnx").write_bytes(b"no model")
    complaint = program("serve", models, *FREE).complaint
    assert "linear/1/model.onnx" in complaint


def test_an_unknown_field_names_its_line(program: Program) -> None:
    models = repository(program.folder)
    (models / "linear" / "config.pbtxt").write_text('name: "linear"\nmax_batchsize: 8\n')
    assert "config.pbtxt:2" in program("serve", models, *FREE).complaint


def test_a_port_in_use(program: Program) -> None:
    models = repository(program.folder)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        failed = program("serve", models, "--http", str(port), "--grpc", "-1", "--metrics", "-1")
    assert f"port {port} is in use" in failed.complaint


def test_others_reach_it_only_with_tokens_or_on_demand(program: Program) -> None:
    models = repository(program.folder)
    complaint = program("serve", models, "--host", "0.0.0.0", *FREE).complaint
    assert "--tokens" in complaint
    tokens = program.folder / "tokens"
    tokens.write_text("me short\n")
    assert "fewer than 16" in program("serve", models, "--tokens", tokens, *FREE).complaint


def test_options_that_do_not_fit_together(program: Program) -> None:
    models = repository(program.folder)
    scenario = program.scenario()
    assert "are for repositories" in program("serve", scenario, "--watch").complaint
    assert "leave the scenario" in program("serve", scenario, models).complaint
    assert "belong together" in program("serve", models, "--tls-key", "k").complaint
    none = program("serve", models, "--http", "-1", "--grpc", "-1", "--metrics", "-1")
    assert "neither HTTP nor gRPC" in none.complaint


def _url_of(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    line = ""
    while " at http" not in line:
        line = process.stderr.readline()
        assert line, process.wait()
    return line.split(" at ")[1].split(",")[0].strip()


def test_a_server_that_was_killed_is_back_from_its_plan_on_the_same_port(
    program: Program, cache_folder: Path
) -> None:
    models = repository(program.folder)
    model = models / "linear" / "1" / "model.onnx"
    done = program("plan", model, "--measure", "0.05s", "-o", program.folder / "planned")
    assert done.status == 0, done.complaint
    env = {**os.environ, "COINFER_CACHE": str(cache_folder)}
    command = [sys.executable, "-m", "coinfer", "serve", "--plan", str(program.folder / "planned")]
    port = "0"
    for _ in range(2):
        ports = ("--http", port, "--grpc", "-1", "--metrics", "-1")
        with subprocess.Popen(
            [*command, *ports], stderr=subprocess.PIPE, text=True, env=env
        ) as process:
            try:
                url = _url_of(process)
                with urllib.request.urlopen(f"{url}/v2/health/ready", timeout=10) as answer:
                    assert answer.status == 200
                with urllib.request.urlopen(f"{url}/v2/models/model", timeout=10) as answer:
                    assert b'"model"' in answer.read()
            finally:
                process.kill()
        port = url.rpartition(":")[2]


@pytest.mark.alone
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_it_serves_until_it_is_told_to_end(
    tmp_path: Path, cache_folder: Path, number: signal.Signals
) -> None:
    models = repository(tmp_path)
    command = [sys.executable, "-m", "coinfer", "serve", str(models), *FREE]
    env = {**os.environ, "COINFER_CACHE": str(cache_folder)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env) as process:
        assert process.stderr is not None
        line = ""
        while "serving linear (1) at " not in line:
            line = process.stderr.readline()
            assert line, process.wait()
        url = line.split(" at ")[1].strip()
        with urllib.request.urlopen(f"{url}/v2/health/ready", timeout=10) as answer:
            assert answer.status == 200
        began_s = time.monotonic()
        process.send_signal(number)
        left = process.stderr.read()
        assert process.wait(30) == 0
    assert left == "coinfer: ending; what was taken is answered\n"
    assert time.monotonic() - began_s < 30


def test_a_wrong_ensemble_is_explained_before_anything_is_loaded(program: Program) -> None:
    models, file = repository(program.folder), program.folder / "e.yaml"
    assert "no such ensemble file" in program("serve", models, "--ensemble", file).complaint
    file.write_text("ensemble: e\n")
    assert "e.yaml:1: inputs: is missing" in program("serve", models, "--ensemble", file).complaint


def test_an_ensemble_of_other_models_names_its_file_and_stage(program: Program) -> None:
    models, file = repository(program.folder), program.folder / "e.yaml"
    file.write_text(
        "ensemble: e\ninputs: {x: {datatype: FP32, shape: [1, 4]}}\n"
        "stages: [{name: s, model: liner, inputs: {x: x}}]\noutputs: {y: s.y}\n"
    )
    complaint = program("serve", models, "--ensemble", file, *FREE).complaint
    assert "e.yaml: stage 's': unknown model 'liner'. Did you mean 'linear'?" in complaint


def test_its_log_is_json_on_demand_with_a_line_per_request(
    program: Program, cache_folder: Path
) -> None:
    command = [sys.executable, "-m", "coinfer", "serve", str(repository(program.folder)), *FREE]
    command += ["--access-log", "--log-format", "json"]
    env = {**os.environ, "COINFER_CACHE": str(cache_folder)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env) as process:
        try:
            assert process.stderr is not None
            said = [json.loads(process.stderr.readline())]
            url = said[0]["message"].split(" at ")[1].split(",")[0]
            with urllib.request.urlopen(f"{url}/v2/health/ready", timeout=10):
                said.append(json.loads(process.stderr.readline()))
            process.send_signal(signal.SIGTERM)
            said += [json.loads(line) for line in process.stderr]
        finally:
            process.kill()
    assert said[0]["message"].startswith("serving linear (1)")
    assert said[1]["call"] == "GET /v2/health/ready"
    assert said[1]["status"] == 200
    assert [each["event"] for each in said] == ["message", "request", "message"]


def test_the_policy_of_a_scenario_and_of_a_plan_can_be_chosen_while_they_serve(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Opened] = []

    def look(_server: object, made: _Sources, *_rest: object, **_options: object) -> None:
        opened.append(made.opened())

    monkeypatch.setattr("coinfer.cli.serve._serve", look)
    scenario, folder = program.scenario(), program.folder / "planned"
    done = program("plan", scenario, "--measure", "0.05s", "--policy", "fcfs", "-o", folder)
    assert done.status == 0, done.err
    for source in ([scenario, "--plan", folder], ["--plan", folder]):
        for options, chooses in (["--policy", "auto"], True), ([], False):
            assert program("serve", *source, *options, *FREE).status == 0
            engine = opened[-1].engine
            with engine:
                thread = engine._policy_thread
                assert (thread is not None) == chooses
                engine.infer("mlp", {"x": np.ones((1, 16), np.float32)})
                if thread is None:
                    continue
                assert [name for name, _, _ in thread.controller.seen.counts] == ["mlp"]
                assert engine.plan.policy.name == "fcfs"
                engine.settle(thread, Verdict(PolicyChoice(name="edf"), Choice("auto", "so")))
                assert (engine.plan.policy.name, engine.policy_why) == ("edf", "so")
            assert not thread._thread.is_alive()


def test_another_policy_than_auto_is_for_repositories(program: Program) -> None:
    scenario = program.scenario()
    assert "but for `--policy auto`" in program("serve", scenario, "--policy", "edf").complaint
    assert "--memory" in program("serve", scenario, "--memory", "1GiB").complaint
