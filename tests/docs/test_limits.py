"""The limits that the documentation lists are those of the code, and all of them."""

from __future__ import annotations

import importlib
import re

import pytest

from docs.pages import ROOT

_ROW = re.compile(r"^\| .+ \| (?P<value>[\d,]+(?: [KMG]iB)?) \| `(?P<name>[\w.]+)` \|$", re.M)
_NAME = re.compile(r"^(_?(?:MOST|MAX|LIMIT|PROTOBUF_LIMIT)[A-Z_]*)(?:: [^=]+)? = ", re.M)
_PACKAGES = ("documents", "model", "workload", "plan", "replay", "runtime")
_SCALES = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_OTHERS = {
    "documents.explain._LIMITS",  # how messages name limits
    "documents.explain._MOST_SHOWN",  # how much of it is shown
    "documents.fields._MOST_SHOWN",
    "documents.writing._MOST_LINKS",  # as the system's own
    "model.outline._MOST_ANSWERS",  # what is remembered
    "model.outline._MOST_BYTES",
    "plan.work._MOST_REMEMBERED",
    "runtime.memory_watch._LIMIT_PERIOD_S",  # how often a limit is looked at
}
"""Constants that limit nothing that users give."""

LISTED = {
    row["name"]: row["value"]
    for row in _ROW.finditer((ROOT / "docs" / "reliability.md").read_text())
}


def number(text: str) -> int:
    digits, _, scale = text.replace(",", "").partition(" ")
    return int(digits) * _SCALES.get(scale, 1)


@pytest.mark.parametrize("name", LISTED)
def test_a_limit_that_is_listed_is_that_of_the_code(name: str) -> None:
    module, _, constant = name.rpartition(".")
    value = getattr(importlib.import_module(f"coinfer.{module}"), constant)
    stated = number(LISTED[name])
    assert value in ((stated, stated - 1) if "GiB" in LISTED[name] else (stated,))


def test_every_limit_is_listed() -> None:
    source = ROOT / "src" / "coinfer"
    found = {
        ".".join((*path.relative_to(source).with_suffix("").parts, name))
        for package in _PACKAGES
        for path in (source / package).rglob("*.py")
        for name in _NAME.findall(path.read_text())
    }
    assert found == LISTED.keys() | _OTHERS
