"""Everything that the documentation tells people to type works."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from coinfer.machine.machine_file import parse_machine
from coinfer.workload.ensemble_file import parse_ensemble
from coinfer.workload.scenario_file import parse_scenario
from docs.pages import PAGES, ROOT, Block, blocks, commands

_NOT_EXECUTED = {
    "make": "runs the whole demonstration, the tests or the benchmark",
    "pip": "changes the environment that the tests run in",
}
_PROGRAMS = ("coinfer", "python")
_HEAVY = {
    "zoo:mobilenet_v2": "zoo:tiny_cnn",
    "zoo:squeezenet1_1": "zoo:tiny_branchy",
    "zoo:resnet50": "zoo:tiny_branchy?seed=1",
    "zoo:resnet101": "zoo:tiny_cnn?seed=1",
    "[224, 224]": "[32, 32]",
}
_COMMANDS = sorted({command for page in PAGES for command in commands(page)})


def _program(command: str) -> str:
    """Return what a command starts, without the settings in front of it."""
    return next(word for word in command.split() if not re.match(r"[A-Z_]+=", word))


NEEDS_SERVER = [command for command in _COMMANDS if re.search(r"127\.0\.0\.1:800\d", command)]
"""Typed beside a server: `test_server_commands` starts one."""
_SERVERS = [command for command in _COMMANDS if command.startswith("coinfer serve ")]
_EXECUTED = [
    command
    for command in _COMMANDS
    if _program(command) not in _NOT_EXECUTED
    and command not in NEEDS_SERVER
    and command not in _SERVERS
]
_WITH_PYTHON = [page for page in PAGES if blocks(page, "python")]
_WITH_SUITE = [p for p in _WITH_PYTHON if any("Suite)" in b.text for b in blocks(p, "python"))]


@dataclass(frozen=True, slots=True)
class Workplace:
    """A folder that looks like the repository's root, with scenarios that take seconds.

    The scenarios of `examples` are the shipped ones but for the size of their networks and the time
    of their warm-up: with the real ones, measuring alone takes minutes on a small machine.
    """

    folder: Path
    environment: Mapping[str, str]

    def run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    folder = tmp_path_factory.mktemp("root")
    examples = folder / "examples"
    examples.mkdir()
    programs = [path.name for path in (ROOT / "examples").glob("*.py")]
    for as_it_is in ("photos", "machines", "processors", "ensemble", *programs):
        (examples / as_it_is).symlink_to(ROOT / "examples" / as_it_is)
    for file in (ROOT / "examples").glob("*.yaml"):
        (examples / file.name).write_text(_light(file.read_text()))
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "COINFER_CACHE": str(folder / "cache"),
    }
    return Workplace(folder, environment)


def _light(scenario: str) -> str:
    for heavy, light in _HEAVY.items():
        scenario = re.sub(rf"{re.escape(heavy)}(?!\d)", light, scenario)
    return re.sub(r"^warmup: .*$", "warmup: 0.1s", scenario, flags=re.M)


def _brief(command: str) -> list[str]:
    words = shlex.split(command)
    if words[:2] == ["coinfer", "run"] and "--duration" not in words:
        words += ["--duration", "0.3s"]
    if "--calibrate" in words:
        words[words.index("--calibrate") + 1] = "1s"
    return words


def _assert_done(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"


def test_every_command_is_executed_or_has_a_reason_not_to_be() -> None:
    unknown = {_program(command) for command in (*_EXECUTED, *NEEDS_SERVER)} - set(_PROGRAMS)
    assert not unknown
    assert len(_EXECUTED) >= 8


@pytest.mark.parametrize("command", _EXECUTED)
def test_a_command_ends_with_status_0(command: str, workplace: Workplace) -> None:
    words = _brief(command)
    if "--plan" in words:  # another process may run the command before it, which makes the plan
        folder = words[words.index("--plan") + 1]
        maker = next(c for c in _EXECUTED if c.startswith("coinfer plan ") and f"-o {folder}" in c)
        _assert_done(workplace.run(_brief(maker)))
    _assert_done(workplace.run(words))


def test_every_example_program_is_among_the_commands() -> None:
    programs = {str(path.relative_to(ROOT)) for path in (ROOT / "examples").glob("*.py")}
    assert programs <= {word for command in _EXECUTED for word in command.split()}


@pytest.mark.parametrize("page", _WITH_PYTHON, ids=lambda page: page.name)
def test_the_python_of_a_page_runs_in_order(page: Path, workplace: Workplace) -> None:
    """And where it defines a suite of tests, that passes too."""
    # Blank lines before each block, so that a traceback shows the line of the page.
    program = ""
    for block in blocks(page, "python"):
        program += "\n" * (block.line - program.count("\n")) + block.text
    script = workplace.folder / f"test_{page.stem.lower()}_page.py"
    script.write_text(program)
    how = ["-m", "pytest", "-q", "-p", "no:cacheprovider"] if page in _WITH_SUITE else []
    _assert_done(workplace.run([sys.executable, "-W", "error", *how, str(script)]))


def test_the_suites_for_policies_and_backends_are_shown() -> None:
    assert {page.name for page in _WITH_SUITE} == {"policies.md", "processors.md"}


@pytest.mark.parametrize(
    "block",
    [block for page in PAGES for block in blocks(page, "yaml")],
    ids=lambda block: block.place,
)
def test_a_scenario_a_machine_or_an_ensemble_in_the_docs_is_valid(block: Block) -> None:
    if "\nstages:" in block.text:
        assert parse_ensemble(block.text, origin=block.place).models
        return
    if "\nensembles:" in block.text:
        folder = ROOT / "examples" / "ensemble"
        assert parse_scenario(block.text, base=folder, origin=block.place).models
        return
    is_machine = "\ntimes:" in block.text or "\nwidths:" in block.text
    parse = parse_machine if is_machine else parse_scenario
    assert parse(block.text, origin=block.place).models


@pytest.mark.parametrize("file", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda f: f.name)
def test_light_scenarios_differ_from_the_shipped_ones_in_sizes_only(file: Path) -> None:
    shipped = parse_scenario(file.read_text())
    light = parse_scenario(_light(file.read_text()))
    assert light.arrivals == shipped.arrivals
    assert light.policy == shipped.policy
    assert list(light.models) == list(shipped.models)
    assert all(
        light.models[name].deadline_s == model.deadline_s for name, model in shipped.models.items()
    )
