"""Verdict: one case on coinfer beside the same case on plain onnxruntime."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import onnx

from coinfer.onnx_backend import CoinferBackend, PreparedModel
from conformance.plain import Plain
from conformance.suite import Attempt, Case

__all__ = ["TOLERANCE", "Run", "Verdict", "outputs_error", "plain_attempt", "verdict"]

TOLERANCE = 1e-5
"""Largest ||out - ref|| / ||ref|| in single precision: a cut hinders fusion, so sums are rounded at
other places."""

_MOST_RANDOM_CUTS = 8
_ALL_CUTS = 10_000


class Run(StrEnum):
    """How coinfer runs a case.

    Members:
        WHOLE: Uncut, on one processor.
        RANDOM: Cut at 1 to 8 random places; each part goes to one of two processors at random.
        EVERYWHERE: Cut between all operators, over two processors.
    """

    WHOLE = "whole"
    RANDOM = "random"
    EVERYWHERE = "everywhere"

    def cuts(self, model: str, seed: int) -> int:
        """How many cuts a model gets."""
        return {
            Run.WHOLE: 0,
            Run.RANDOM: 1 + _drawn(model, seed) % _MOST_RANDOM_CUTS,
            Run.EVERYWHERE: _ALL_CUTS,
        }[self]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What came of a case.

    Attributes:
        case: Which.
        run: How coinfer ran it.
        passed: Whether it passed the suite on coinfer.
        plain_passed: Whether it did on plain onnxruntime.
        difference: In what coinfer differs from plain onnxruntime; empty if in nothing.
        parts: Into how many parts the model was cut; 0 if coinfer refused it.
        error: Largest relative error of a single-precision output against plain onnxruntime.
    """

    case: Case
    run: Run
    passed: bool
    plain_passed: bool
    difference: str
    parts: int
    error: float


def plain_attempt(case: Case) -> Attempt:
    """Run a case on plain onnxruntime."""
    return case.attempt(Plain)


def verdict(case: Case, plain: Attempt, run: Run, *, seed: int = 0) -> Verdict:
    """Run a case on coinfer and compare."""

    def prepare(model: onnx.ModelProto) -> PreparedModel:
        name = model.graph.name
        return CoinferBackend.prepare(
            model, cuts=run.cuts(name, seed), seed=_drawn(f"{name} places", seed)
        )

    ours = case.attempt(prepare)
    error = outputs_error(ours, plain)
    parts = 0
    if ours.prepared is not None:
        parts = len(ours.prepared.route.steps)
        ours.prepared.close()
    return Verdict(
        case=case,
        run=run,
        passed=ours.passed,
        plain_passed=plain.passed,
        difference=_difference(ours, plain, run, error),
        parts=parts,
        error=error,
    )


def outputs_error(ours: Attempt, plain: Attempt) -> float:
    """Return the largest relative error of a single-precision output."""
    return max(
        (
            _error(out, ref)
            for outs, refs in zip(ours.outputs, plain.outputs, strict=False)
            for out, ref in zip(outs, refs, strict=True)
        ),
        default=0.0,
    )


def _drawn(text: str, seed: int) -> int:
    return zlib.crc32(f"{seed} {text}".encode())


def _difference(ours: Attempt, plain: Attempt, run: Run, error: float) -> str:
    if plain.passed and not ours.passed:
        return f"passes on plain onnxruntime but not on coinfer: {ours.problem}"
    if ours.passed and not plain.passed:
        return f"passes on coinfer but not on plain onnxruntime: {plain.problem}"
    if len(ours.outputs) != len(plain.outputs):
        return (
            f"{len(ours.outputs)} runs on coinfer ({ours.problem}), {len(plain.outputs)} on plain "
            f"onnxruntime ({plain.problem})"
        )
    if run is Run.WHOLE and not _same(ours.outputs, plain.outputs):
        return "the outputs of the whole model are not those of plain onnxruntime to the last bit"
    if plain.passed and error > TOLERANCE:
        return f"relative error {error:.2g} against plain onnxruntime, above {TOLERANCE:g}"
    return ""


def _same(ours: Any, plain: Any) -> bool:
    if isinstance(plain, np.ndarray):
        inexact = plain.dtype.kind in "fc"
        return (
            isinstance(ours, np.ndarray)
            and ours.dtype == plain.dtype
            and np.array_equal(ours, plain, equal_nan=inexact)
        )
    if isinstance(plain, list):
        return len(ours) == len(plain) and all(map(_same, ours, plain))
    return ours is None and plain is None


def _error(ours: Any, plain: Any) -> float:
    if not isinstance(plain, np.ndarray) or plain.dtype != np.float32 or ours.shape != plain.shape:
        return 0.0
    finite = np.isfinite(plain)
    if not np.array_equal(ours[~finite], plain[~finite], equal_nan=True):
        return float("inf")
    reference = plain[finite].astype(np.float64)
    gap = float(np.linalg.norm(ours[finite] - reference))
    norm = float(np.linalg.norm(reference))
    return gap / norm if norm else gap
