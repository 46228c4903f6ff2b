"""The coverage table of `docs/fusion.md` is that of the rules, and what it says is tested is."""

from __future__ import annotations

import re

from coinfer.graph.fusing.rules import RULES
from docs.pages import ROOT
from graph.fusing.test_equality import OPERATORS

_ROW = re.compile(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", re.M)
_ROWS = _ROW.findall((ROOT / "docs" / "fusion.md").read_text(encoding="utf-8"))


def test_the_table_lists_every_rule_with_its_text() -> None:
    assert [(name, text) for name, text, _ in _ROWS] == [
        (name, RULES[name].text) for name in sorted(RULES)
    ]


def test_every_operator_is_tested_where_the_table_says() -> None:
    """`make conformance` looks at those of the suite."""
    texts = " ".join(OPERATORS.values())
    for name, _, tests in _ROWS:
        named = set(tests.split(", "))
        assert named <= {"suite", "graphs"}, name
        assert named, name
        assert ("graphs" in named) == bool(re.search(rf"\b{name}[<(]", texts)), name
