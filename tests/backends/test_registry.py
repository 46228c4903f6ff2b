"""Backends are found by name, made once, and their absence is explained."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from coinfer.backends import available, backend_names, get_backend, registry
from coinfer.backends.null import NullBackend
from coinfer.errors import BackendError, UnknownNameError


class Ours(NullBackend):
    name = "ours"


class Broken:
    def __init__(self) -> None:
        raise OSError("libbroken.so: no such file")


@pytest.fixture
def third_party(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [
        EntryPoint(name=name, group=registry.ENTRY_POINT_GROUP, value=f"{__name__}:{value}")
        for name, value in (("ours", "Ours"), ("broken", "Broken"), ("absent", "Absent"))
    ]
    entries.append(
        EntryPoint(name="nolib", group=registry.ENTRY_POINT_GROUP, value="no_such_library:B")
    )
    monkeypatch.setattr(registry, "entry_points", lambda group: entries)
    monkeypatch.setattr(registry, "_instances", {})
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Ours.__module__])


def test_there_is_one_instance_per_process() -> None:
    assert get_backend("onnxruntime") is get_backend("onnxruntime")


def test_an_unknown_name_is_answered_with_the_nearest_and_all_known_names() -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean 'onnxruntime'.*openvino"):
        get_backend("onxruntime")


@pytest.mark.usefixtures("third_party")
def test_an_entry_point_adds_a_backend() -> None:
    assert "ours" in backend_names()
    assert get_backend("ours").name == "ours"


@pytest.mark.usefixtures("third_party")
def test_a_backend_that_cannot_start_is_named_with_its_reason() -> None:
    with pytest.raises(BackendError, match=r"'broken' cannot start: libbroken\.so"):
        get_backend("broken")


@pytest.mark.usefixtures("third_party")
def test_a_backend_whose_library_is_missing_is_named() -> None:
    with pytest.raises(BackendError, match=r"'nolib' cannot be imported: .*no_such_library"):
        get_backend("nolib")


@pytest.mark.usefixtures("third_party")
def test_available_lists_every_backend_and_the_problem_of_those_that_fail() -> None:
    by_name = {each.name: each for each in available()}
    assert by_name["ours"].backend is not None
    assert by_name["ours"].problem == ""
    assert by_name["broken"].backend is None
    assert "libbroken.so" in by_name["broken"].problem


def test_a_missing_openvino_is_explained_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "_instances", {})
    for name in [each for each in sys.modules if each.startswith("coinfer.backends.openvino")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "openvino", None)  # makes the import fail
    with pytest.raises(BackendError, match=r"pip install 'coinfer\[openvino\]'"):
        get_backend("openvino")


def test_listing_backends_imports_no_inference_library() -> None:
    code = (
        "import sys, coinfer.backends as b; b.backend_names();"
        "sys.exit(any(m in sys.modules for m in ('onnxruntime', 'openvino', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
