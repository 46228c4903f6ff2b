"""Budgets at the command line: too small ones say what is needed, results say what was loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.program import Program

MACHINE = """
processors: {cpu0: {}}
times:
  a: {cpu0: {mean: 10ms, load: 50ms, memory: 100MiB}}
  b: {cpu0: {mean: 10ms, load: 50ms, memory: 80MiB}}
"""


def scenario(folder: Path, memory: str) -> Path:
    (folder / "m.yaml").write_text(MACHINE)
    path = folder / "s.yaml"
    path.write_text(
        "machine: m.yaml\nmodels: {a: {}, b: {}}\n"
        "arrivals: {offline: {counts: {a: 3, b: 3}, order: grouped}}\n"
        f"memory: {memory}\n"
    )
    return path


@pytest.mark.parametrize("verb", ["simulate", "bound"])
def test_a_budget_too_small_for_the_largest_span_says_how_much_is_needed(
    verb: str, program: Program, tmp_path: Path
) -> None:
    done = program(verb, str(scenario(tmp_path, "99MiB")))
    assert done.status == 2
    assert "model 'a' needs at least 100 MiB at a time, for its largest span" in done.complaint
    assert "give `memory: 100MiB` or more" in done.complaint
    assert "Traceback" not in done.complaint


def test_of_several_models_that_have_no_room_the_one_that_needs_most_is_named(
    program: Program, tmp_path: Path
) -> None:
    path = scenario(tmp_path, "50MiB")
    path.write_text(path.read_text().replace("{a: {}, b: {}}", "{b: {}, a: {}}"))
    done = program("bound", str(path))
    assert done.status == 2
    assert "model 'a' needs at least 100 MiB" in done.complaint


def test_results_say_how_far_loading_is_from_the_least_there_can_be(
    program: Program, tmp_path: Path
) -> None:
    path = scenario(tmp_path, "100MiB")
    out = program("simulate", str(path), "--json", str(tmp_path / "out.json")).out
    assert "8.33 ms of loading a request; no schedule needs less than 6.67 ms" in out
    memory = json.loads((tmp_path / "out.json").read_text())["memory"]
    assert memory["least_load_s"] == pytest.approx(0.040 / 6)
    assert memory["believed_bytes"] == {"host": 100 << 20}
    assert memory["held"] is None
    said = program("bound", str(path)).out
    assert "within the memory: loading takes at least 6.67 ms a request" in said
    ample = program("bound", str(scenario(tmp_path, "180MiB"))).out
    assert "within the memory: no time is needed for loading" in ample


def test_what_all_ends_after_the_measured_time_is_no_measure_of_loading(
    program: Program, tmp_path: Path
) -> None:
    path = scenario(tmp_path, "100MiB")
    arrivals = "{a: {periodic: 10/s}, b: {periodic: 10/s}}"
    text = path.read_text().splitlines()
    text[2] = f"arrivals: {arrivals}"
    path.write_text("\n".join([*text, "duration: 5ms", "warmup: 0s"]))
    done = program("simulate", str(path))
    assert "loads of" in done.out
    assert "of loading a request" not in done.out
