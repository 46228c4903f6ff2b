"""The documentation agrees with the code and with itself."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import coinfer
from coinfer import errors
from coinfer.policies import policy_names
from coinfer.policies.registry import _BUILT_IN
from docs.pages import FOR_CONTRIBUTORS, PAGES, ROOT, commands, without_code

_LINK = re.compile(r"\]\((?!https?:)(?P<target>[^)#\s]*)(?:#(?P<anchor>[^)\s]+))?\)")
_ERROR_ROW = re.compile(r"^\| `(\w+Error)` \| .+ \| (\d+) \| `(\w+)` \|$", re.M)


def _page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_the_generated_parts_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_listed_module_exists_and_every_module_is_listed() -> None:
    listed = set(re.findall(r"^\| `([\w/]+\.py)` \|", _page("architecture.md"), re.M))
    package = ROOT / "src" / "coinfer"
    paths = [path for path in package.rglob("*.py") if path.name != "__main__.py"]
    existing = {str(path.relative_to(package)) for path in paths}
    assert listed == existing


def test_every_module_says_what_it_is() -> None:
    empty = re.findall(r"^\| `([\w/]+\.py)` \| *(?:TODO)? *\|$", _page("architecture.md"), re.M)
    assert not empty


def test_files_that_something_new_goes_to_exist() -> None:
    page = _page("architecture.md")
    table = page[page.index("| new | file |") : page.index("## Inside the core")]
    named = set(re.findall(r"`([a-z_]+/[\w/]+\.py)`", table))
    package = ROOT / "src" / "coinfer"
    assert len(named) > 15
    assert not [n for n in named if "NAME" not in n and not (package / n).exists()]


def test_the_layers_on_the_page_are_those_that_are_checked() -> None:
    page = _page("architecture.md")
    shown = page[page.index("## Layers") :].split("```")[1].split("\n")
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    checked = contracts["contracts"][0]["layers"]
    assert [line for line in shown if line] == [name.replace("coinfer.", "") for name in checked]


def test_every_policy_is_kept_from_importing_another() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    checked = contracts["contracts"][-1]["modules"]
    modules = {f"coinfer.policies.{name}" for name in _BUILT_IN}
    assert modules <= set(checked)


@pytest.mark.parametrize("page", [*PAGES, *FOR_CONTRIBUTORS], ids=page_id)
def test_links_between_pages_resolve(page: Path) -> None:
    for link in _LINK.finditer(without_code(page)):
        target = page.parent / link["target"] if link["target"] else page
        assert target.exists(), f"{page.name} links to {link['target']}"
        if link["anchor"]:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.M)
            anchors = {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}
            assert link["anchor"] in anchors, f"{page.name} links to #{link['anchor']}"


@pytest.mark.parametrize("page", FOR_CONTRIBUTORS[:1], ids=page_id)
def test_paths_that_contributors_are_sent_to_exist(page: Path) -> None:
    named = set(
        re.findall(r"`((?:src|tests|docs|benchmarks|examples)/[\w./-]+)`", page.read_text())
    )
    to_be_made = {path for path in named if re.search(r"NAME|VERB|planner/passes", path)}
    assert len(named) > 20
    assert not [path for path in named - to_be_made if not (ROOT / path).exists()]


@pytest.mark.parametrize("page", [*PAGES, *FOR_CONTRIBUTORS], ids=page_id)
def test_targets_of_make_that_a_page_names_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    lines = [*commands(page), *re.findall(r"`(make [^`]+)`", without_code(page))]
    for line in lines:
        program, *words = line.split("#")[0].split("&&")[-1].split()
        if program == "make":
            assert {word for word in words if "=" not in word} <= targets, line


def test_every_page_is_linked_from_the_readme() -> None:
    readme = PAGES[0].read_text()
    assert not [page.name for page in PAGES[1:] if f"(docs/{page.name})" not in readme]


def test_every_public_name_is_listed() -> None:
    page = _page("engine.md")
    table = page[page.index("## Names") : page.index("## Statistics")]
    assert sorted(re.findall(r"`coinfer\.(\w+)`", table)) == sorted(coinfer.__all__)


def test_every_error_is_listed_with_its_status() -> None:
    listed = {
        name: (int(http), grpc) for name, http, grpc in _ERROR_ROW.findall(_page("engine.md"))
    }
    classes = {name: getattr(errors, name) for name in errors.__all__}
    assert listed == {name: (c.http_status, c.grpc_status) for name, c in classes.items()}


def test_every_policy_has_a_section() -> None:
    sections = set(re.findall(r"^### `(\w+)`", _page("policies.md"), re.M))
    assert sections == set(policy_names())
