"""Rewrite the generated parts of the docs from the code. `--check` only compares.

Today that is one table: every module with the first sentence of its docstring.
"""

from __future__ import annotations

import argparse
import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "coinfer"
PAGE = ROOT / "docs" / "architecture.md"
MARK = "## Modules\n"

# From the bottom of the import order to the top.
ORDER = (
    "__init__.py", "errors.py", "scenarios", "units.py", "cache_folder.py", "quiet.py", "documents",
    "model", "threads", "artefacts", "machine", "plan", "bound", "core", "policies", "graph",
    "workload", "metrics", "opening.py", "backends", "hardware", "zoo", "profiling", "report",
    "runtime", "sim", "replay", "experiments", "planner", "retraining", "api", "onnx_backend",
    "ensembles", "server", "load_test", "cli", "testing",
)  # fmt: skip


def main() -> int:
    """Write the page, or with `--check` say whether it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    text = PAGE.read_text()
    head, mark, _ = text.partition(MARK)
    wanted = head + mark + "\n" + table() + "\n"
    if text == wanted:
        return 0
    if check:
        sys.stderr.write(f"{PAGE.name} is out of date; run `python docs/generate.py`\n")
        return 1
    PAGE.write_text(wanted)
    return 0


def table() -> str:
    """Return the table of modules as Markdown."""
    rows = [f"| `{path.relative_to(PACKAGE)}` | {summary(path)} |" for path in modules()]
    return "\n".join(["| module | what it is |", "|---|---|", *rows])


def modules() -> list[Path]:
    """Return the modules in the order of `ORDER`; one that it does not know comes last."""
    paths = [p for p in PACKAGE.rglob("*.py") if p.name != "__main__.py"]
    known = {name: at for at, name in enumerate(ORDER)}
    return sorted(
        paths,
        key=lambda p: (known.get(p.relative_to(PACKAGE).parts[0], len(ORDER)), str(p)),
    )


def summary(path: Path) -> str:
    """Return the first paragraph of a module's docstring on one line."""
    doc = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(doc.partition("\n\n")[0].split())


if __name__ == "__main__":
    sys.exit(main())
