"""The documentation agrees with the code and with itself."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from coinfer import errors
from coinfer.policies import policy_names
from docs.pages import PAGES, ROOT, without_code

_LINK = re.compile(r"\]\((?!https?:)(?P<target>[^)#\s]+)(?:#(?P<anchor>[^)\s]+))?\)")
_ERROR_ROW = re.compile(r"^\| `(\w+Error)` \| .+ \| (\d+) \| `(\w+)` \|$", re.M)


def _page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


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
    existing = {str(path.relative_to(package)) for path in package.rglob("*.py")} - {"__main__.py"}
    assert listed == existing


def test_every_module_says_what_it_is() -> None:
    empty = re.findall(r"^\| `([\w/]+\.py)` \| *(?:TODO)? *\|$", _page("architecture.md"), re.M)
    assert not empty


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_resolve(page: Path) -> None:
    for link in _LINK.finditer(without_code(page)):
        target = page.parent / link["target"]
        assert target.exists(), f"{page.name} links to {link['target']}"
        if link["anchor"]:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.M)
            anchors = {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}
            assert link["anchor"] in anchors, f"{page.name} links to #{link['anchor']}"


def test_every_page_is_linked_from_the_readme() -> None:
    readme = PAGES[0].read_text()
    assert not [page.name for page in PAGES[1:] if f"(docs/{page.name})" not in readme]


def test_every_error_is_listed_with_its_status() -> None:
    listed = {
        name: (int(http), grpc) for name, http, grpc in _ERROR_ROW.findall(_page("engine.md"))
    }
    classes = {name: getattr(errors, name) for name in errors.__all__}
    assert listed == {name: (c.http_status, c.grpc_status) for name, c in classes.items()}


def test_every_policy_has_a_section() -> None:
    sections = set(re.findall(r"^### `(\w+)`", _page("policies.md"), re.M))
    assert sections == set(policy_names())
