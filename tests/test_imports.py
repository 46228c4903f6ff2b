"""No two files need each other: imports have no cycle, those for type checkers included.

It parses the files itself, so that it holds whatever the import rules of `pyproject.toml` say.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import coinfer

ROOT = Path(coinfer.__file__).parent
FILES = {
    ".".join(("coinfer", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in ROOT.rglob("*.py")
}


def imported_by(module: str, source: str) -> set[str]:
    return set(_imported(ast.parse(source))) - {module}


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in FILES)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield from [name for name in (whole, node.module or "") if name in FILES][:1]


def cycle_in(imports: Mapping[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def test_a_cycle_is_found_also_if_only_a_type_checker_sees_it() -> None:
    lane = "from coinfer.core.request import Request"
    request = "if TYPE_CHECKING:\n    from coinfer.core.lane import Lane"
    imports = {
        "coinfer.core.lane": imported_by("coinfer.core.lane", lane),
        "coinfer.core.request": imported_by("coinfer.core.request", request),
    }
    assert set(cycle_in(imports)) == {"coinfer.core.lane", "coinfer.core.request"}


@pytest.mark.skipif(len(FILES) < 100, reason="a compiled build has no sources")
def test_no_files_import_one_another_in_a_circle() -> None:
    imports = {
        name: imported_by(name, path.read_text(encoding="utf-8")) for name, path in FILES.items()
    }
    assert cycle_in(imports) == []
