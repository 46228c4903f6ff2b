"""Torch: the official suite on the backend `torch`, alone and with onnxruntime to fall back on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import onnx

from coinfer.machine.processor import Processor
from coinfer.onnx_backend import CoinferBackend
from conformance.exclusions import load_exclusions
from conformance.suite import Attempt, Case
from conformance.verdict import Run, outputs_error

__all__ = ["TORCH_EXCLUSIONS", "TorchRun", "TorchVerdict", "torch_verdict", "unexplained"]

TORCH_EXCLUSIONS: Mapping[str, str] = {
    "test_attention_4d_causal_fp16_expanded": (
        "float16: sums are rounded in another order, and two of 192 elements are one step of that "
        "type off, which is more than the relative 0.001 that the suite allows"
    ),
}
"""Cases that torch computes otherwise than the suite wants, with the reason."""

TOLERANCE = 1e-5
"""Largest relative error of a single-precision output against plain onnxruntime."""

_NOT_TAKEN = {name for name, each in load_exclusions().items() if Run.WHOLE in each.runs}
"""What coinfer does not take at all."""

_ALL_CUTS = 10_000
_TORCH = Processor(name="torch", backend="torch", units=frozenset({"a"}))
_OTHER = Processor(name="ort", backend="onnxruntime", units=frozenset({"b"}))


class TorchRun(StrEnum):
    """How a case is run.

    Members:
        ALONE: The whole model on torch; a model with an operator that is not in its table is
            refused.
        FALLBACK: Cut between all operators: each goes to torch or onnxruntime, drawn at random,
            and to onnxruntime if torch does not compute it.
    """

    ALONE = "alone"
    FALLBACK = "fallback"


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchVerdict:
    """What came of a case.

    Attributes:
        case: Which.
        run: How it was run.
        passed: Whether it passed the suite.
        refused: Whether the model was refused before anything ran.
        difference: What is wrong; empty if nothing is.
        parts: Into how many parts it was cut, by backend; empty if it was refused.
    """

    case: Case
    run: TorchRun
    passed: bool
    refused: bool
    difference: str
    parts: tuple[str, ...]


def torch_verdict(case: Case, plain: Attempt, run: TorchRun) -> TorchVerdict:
    """Run a case that plain onnxruntime passes."""
    ours = case.attempt(_preparing([_TORCH] if run is TorchRun.ALONE else [_TORCH, _OTHER]))
    refused = ours.prepared is None
    parts: tuple[str, ...] = ()
    if ours.prepared is not None:
        parts = tuple(name for _, name in ours.prepared.route.steps)
        ours.prepared.close()
    difference = ""
    if refused and run is TorchRun.FALLBACK and case.name not in _NOT_TAKEN:
        difference = f"refused: {ours.problem}"
    elif not refused and not ours.passed:
        difference = ours.problem
    elif ours.passed and (error := outputs_error(ours, plain)) > TOLERANCE:
        difference = f"relative error {error:.2g}, above {TOLERANCE:g}"
    return TorchVerdict(
        case=case,
        run=run,
        passed=ours.passed,
        refused=refused,
        difference=difference,
        parts=parts,
    )


def unexplained(verdicts: Iterable[TorchVerdict]) -> list[str]:
    """Describe the differences that are not excluded, and exclusions without a difference."""
    lines = []
    for verdict in verdicts:
        excluded = verdict.case.name in TORCH_EXCLUSIONS
        if verdict.difference and not excluded:
            lines.append(f"{verdict.case.name} ({verdict.run}): {verdict.difference}")
        if excluded and verdict.run is TorchRun.ALONE and not verdict.difference:
            lines.append(f"{verdict.case.name} is excluded but does not differ")
    return lines


def _preparing(processors: list[Processor]) -> Callable[[onnx.ModelProto], Any]:
    cuts = _ALL_CUTS if len(processors) > 1 else 0
    return lambda model: CoinferBackend.prepare(model, processors=processors, cuts=cuts)
