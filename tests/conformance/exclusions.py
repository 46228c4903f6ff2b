"""Exclusions: where coinfer may differ from plain onnxruntime. Each has its reason in the file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from conformance.verdict import Run, Verdict

__all__ = ["Exclusion", "load_exclusions", "unexplained"]

_FILE = Path(__file__).with_name("exclusions.yaml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """Why a case is excluded, and from which runs."""

    reason: str
    runs: frozenset[Run]


def load_exclusions() -> dict[str, Exclusion]:
    """Read the file; by case."""
    found: dict[str, Exclusion] = {}
    for row in yaml.safe_load(_FILE.read_text(encoding="utf-8")):
        exclusion = Exclusion(
            reason=row["reason"], runs=frozenset(map(Run, row.get("runs", list(Run))))
        )
        for name in row["cases"]:
            assert name not in found, f"{name} is excluded twice"
            found[name] = exclusion
    return found


def unexplained(verdicts: Iterable[Verdict], exclusions: Mapping[str, Exclusion]) -> list[str]:
    """Describe the differences that are not excluded, and exclusions without a difference."""
    lines = []
    for verdict in verdicts:
        exclusion = exclusions.get(verdict.case.name)
        excluded = exclusion is not None and verdict.run in exclusion.runs
        if verdict.difference and not excluded:
            lines.append(f"{verdict.case.name} ({verdict.run}): {verdict.difference}")
        # Whether random cuts make a difference depends on where they fall.
        if excluded and not verdict.difference and verdict.run is not Run.RANDOM:
            lines.append(
                f"{verdict.case.name} ({verdict.run}): is excluded but does not differ; take it "
                f"off {_FILE.name}"
            )
    return lines
