"""The package: what it exports is true, importing it is light, and its examples run."""

from __future__ import annotations

import ast
import doctest
import importlib
import importlib.util
import json
import os
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import coinfer

ROOT = Path(coinfer.__file__).parent
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages([str(ROOT)], "coinfer.")
    if module.name != "coinfer.__main__"  # importing it runs the program
)
OPTIONAL = {"coinfer.backends.openvino": "openvino", "coinfer.backends.torch": "torch"}
"""Modules that need a library which is not always installed."""


def imported(name: str) -> object:
    for prefix, library in OPTIONAL.items():
        if name.startswith(prefix) and importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
    return importlib.import_module(name)


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return set(json.loads(done.stdout))


HEAVY = {"numpy", "onnx", "onnx_ir", "onnxruntime", "openvino", "pydantic", "scipy", "torch"}


def test_importing_the_package_imports_nothing_heavy() -> None:
    loaded = modules_after("import coinfer")
    assert not loaded & (HEAVY | {"rich", "typer", "yaml", "psutil"})
    assert {name for name in loaded if name.startswith("coinfer")} == {"coinfer"}


def test_importing_the_engine_imports_no_library_that_a_warm_start_does_not_need() -> None:
    loaded = modules_after("import coinfer.api.engine")
    assert not loaded & {"onnx", "onnx_ir", "onnxruntime", "openvino", "scipy", "sympy", "torch"}


def test_importing_the_command_line_imports_no_inference_library() -> None:
    loaded = modules_after("import coinfer.cli")
    assert not loaded & {"onnx", "onnx_ir", "onnxruntime", "openvino", "pydantic", "scipy", "torch"}


@pytest.mark.parametrize("package", ["core", "policies", "metrics", "workload", "machine"])
def test_the_pure_layers_import_no_inference_library(package: str) -> None:
    assert not modules_after(f"import coinfer.{package}") & {"onnxruntime", "openvino", "torch"}


def test_the_public_names_are_sorted_and_exist() -> None:
    assert coinfer.__all__ == sorted(coinfer.__all__)
    for name in coinfer.__all__:
        assert getattr(coinfer, name).__module__.startswith("coinfer.")
    assert set(coinfer.__all__) <= set(dir(coinfer))


def test_the_type_checker_sees_the_names_that_exist_at_run_time() -> None:
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        (alias.name, node.module)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert {name for name, _ in seen} == set(coinfer.__all__)
    for name, module in seen:
        assert module is not None
        assert getattr(importlib.import_module(module), name) is getattr(coinfer, name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Engin'"):
        coinfer.Engin  # noqa: B018


def test_the_version_is_that_of_the_project() -> None:
    project = ROOT.parents[1] / "pyproject.toml"
    if not project.exists():
        pytest.skip("installed without its source tree")
    assert tomllib.loads(project.read_text())["project"]["version"] == coinfer.__version__


@pytest.mark.parametrize("name", MODULES)
def test_every_name_that_a_module_exports_exists(name: str) -> None:
    module = imported(name)
    exported = getattr(module, "__all__", None)
    if exported is None:
        own = [k for k, v in vars(module).items() if getattr(v, "__module__", None) == name]
        assert not own, f"{name} defines {own} and has no __all__"
        return
    assert len(exported) == len(set(exported))
    for each in exported:
        assert hasattr(module, each), f"{name}.__all__ names {each}"


@pytest.mark.parametrize("name", ["coinfer", *MODULES])
def test_the_examples_in_docstrings_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COINFER_CACHE", str(tmp_path))
    if name.startswith("coinfer.retraining"):
        pytest.importorskip("torch", reason="retraining needs torch")
    module = imported(name)
    result = doctest.testmod(module)  # type: ignore[arg-type]
    assert result.failed == 0


EXAMPLES = sorted((ROOT.parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_run(path: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "COINFER_CACHE": str(tmp_path / "cache")},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert done.stderr == ""
