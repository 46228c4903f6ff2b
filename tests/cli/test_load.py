"""`coinfer load` plays a scenario on a server and prints the table of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("httptools", reason="the extra `server` is not installed")
pytest.importorskip("grpc", reason="the extra `server` is not installed")

from cli.test_run import Running, needs_sigint
from coinfer.cli.app import main
from coinfer.planner.model_source import resolve_model
from coinfer.server.serving import ServeOptions
from server.servers import serving

SCENARIO = """
name: both
models:
  a: {source: "zoo:lenet", deadline: 1s, on_late: drop}
arrivals: {offline: {counts: {a: 20}}}
"""


def _status(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["load", *arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_it_prints_the_table_of_a_run_and_writes_json(
    protocol: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "both.yaml").write_text(SCENARIO)
    model = resolve_model("zoo:lenet", name="a")
    with serving({"a": model}, options=ServeOptions(http=0, grpc=0)) as server:
        place = f"127.0.0.1:{server.ports[protocol]}"
        option = {"http": "--url", "grpc": "--grpc"}[protocol]
        file = tmp_path / "out.json"
        assert _status(str(tmp_path / "both.yaml"), option, place, "--json", str(file)) == 0
    shown = capsys.readouterr().out
    assert f"both  load on {place}" in shown
    said = json.loads(file.read_text())
    assert said["totals"]["completed"] == 20
    assert said["models"]["a"]["deadline_hit_rate"] == 1.0


def test_one_server_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "both.yaml").write_text(SCENARIO)
    assert _status(str(tmp_path / "both.yaml")) == 2
    assert "name the server with --url" in capsys.readouterr().err
    assert _status(str(tmp_path / "both.yaml"), "--url", "http://127.0.0.1:9") == 2
    assert "does not answer" in capsys.readouterr().err


@pytest.mark.alone
@needs_sigint
def test_an_interrupted_load_shows_what_there_is(tmp_path: Path, cache_folder: Path) -> None:
    text = 'models: {a: {source: "zoo:lenet"}}\narrivals: {a: {closed: 1}}\nduration: 1h\n'
    (tmp_path / "long.yaml").write_text(text)
    model = resolve_model("zoo:lenet", name="a")
    with serving({"a": model}) as server:
        url = f"http://127.0.0.1:{server.ports['http']}"
        running = Running(tmp_path, cache_folder, "load", "long.yaml", "--url", url)
        outcome = running.interrupt_when("running")
    assert outcome.status == 130, outcome
    assert outcome.err == "coinfer: interrupted\n"
    assert "warning: interrupted" in outcome.out
