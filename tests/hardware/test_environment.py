"""The description of the machine is complete and can be written as JSON."""

from __future__ import annotations

import json
from importlib import metadata
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from pathlib import Path

import psutil
import pytest

from coinfer.hardware import describe, environment, find_cores
from hardware.fake_root import v2, write


def test_it_survives_json_unchanged() -> None:
    found = describe()
    assert json.loads(json.dumps(found)) == found


def test_it_names_the_versions_that_decide_speed() -> None:
    installed = metadata.version("onnxruntime")
    assert describe()["backends"]["onnxruntime"] == {"onnxruntime": installed}


@pytest.mark.parametrize(
    ("origin", "compiled"),
    [("dispatcher.py", False), ("dispatcher" + EXTENSION_SUFFIXES[0], True)],
)
def test_it_says_whether_the_core_is_compiled(
    origin: str, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = ModuleSpec("coinfer.core.dispatcher", None, origin=origin)
    monkeypatch.setattr(environment, "find_spec", {found.name: found}.get)
    assert describe()["compiled"] is compiled


def test_it_reports_the_cores_used() -> None:
    assert describe()["cores"]["used"] == list(find_cores().numbers)


def test_memory_is_the_smaller_of_machine_and_group(tmp_path: Path) -> None:
    total = psutil.virtual_memory().total
    assert environment.memory_bytes(root=tmp_path) == total
    limited = v2(tmp_path / "a", {"memory.max": "1048576"})
    assert environment.memory_bytes(root=limited) == 2**20
    generous = v2(tmp_path / "b", {"memory.max": str(2 * total)})
    assert environment.memory_bytes(root=generous) == total


def test_the_processors_name_is_read_from_the_system(tmp_path: Path) -> None:
    write(tmp_path, {"proc/cpuinfo": "processor\t: 0\nmodel name\t: Fast One @ 9 GHz\n"})
    assert environment.cpu_name(root=tmp_path) == "Fast One @ 9 GHz"
    assert environment.cpu_name(root=tmp_path / "none") != ""


def test_variables_that_size_thread_pools_are_found() -> None:
    variables = {"OMP_NUM_THREADS": "4", "PATH": "/bin"}
    assert environment.thread_variables(variables) == {"OMP_NUM_THREADS": "4"}


def test_every_wheel_that_holds_onnxruntime_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"onnxruntime": ["onnxruntime-gpu", "onnxruntime", "onnxruntime"]}
    monkeypatch.setattr(environment.metadata, "packages_distributions", lambda: both)
    assert environment.onnxruntime_wheels() == ("onnxruntime", "onnxruntime-gpu")


@pytest.mark.parametrize("error", [FileNotFoundError("/proc/meminfo"), RuntimeError("odd")])
def test_memory_that_the_system_does_not_tell_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def unknown() -> None:
        raise error

    monkeypatch.setattr(environment.psutil, "virtual_memory", unknown)
    assert environment.memory_bytes(root=tmp_path) is None
    assert environment.memory_bytes(root=v2(tmp_path, {"memory.max": "1048576"})) == 2**20
    assert json.dumps(describe())
