"""Fused: each case of the suite in one graph with a renamed copy of itself on other inputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import onnx

from coinfer.errors import ModelError
from coinfer.graph.fusing.bundle import Bundle
from coinfer.graph.fusing.choice import Form
from coinfer.graph.fusing.fused_model import FusedModel, fuse_models
from coinfer.graph.fusing.layout import Layout
from coinfer.graph.fusing.signature import settings_of
from coinfer.graph.fusing.site import Site
from coinfer.model import Model, model_from_bytes
from conformance.plain import Plain
from conformance.suite import Case

__all__ = [
    "FUSED_EXCLUSIONS",
    "FusedVerdict",
    "Preferring",
    "Weights",
    "fused_verdict",
    "unexplained",
]

FUSED_EXCLUSIONS: Mapping[str, str] = {
    "test_attention_4d_causal_fp16_expanded": (
        "float16: packed, sums are rounded in another order, and two of 192 elements are one step "
        "beyond the relative 0.001 that the suite allows; stacked it passes"
    ),
}
"""Cases in which a fused graph may differ, with the reason."""

_REFUSALS = (
    ("must be a tensor", "coinfer takes and gives tensors only"),
    ("plain onnxruntime does not run it", "it does not run with its inputs stored"),
    ("topologically sorted", "onnx.compose renames it wrongly"),
)
"""What is said of models that are not fused at all, and why that is no fault of fusing."""

TOLERANCE = {"float16": 2e-3, "float32": 1e-5, "float64": 1e-10}
"""Largest relative error against the separate models: a merged sum is rounded at other places."""

_ROUGH = 2e-2  # bfloat16 and narrower, as wide as the suite itself is


class Weights(StrEnum):
    """What becomes of inputs other than the first one."""

    INPUTS = "inputs"
    STORED = "stored"


@dataclass(frozen=True, slots=True)
class Preferring:
    """Costs by which all is merged wherever it can be, in one layout if it can be had."""

    layout: Layout

    def run_s(self, site: Site, layout: Layout) -> float:
        return {self.layout: 1.0, Layout.BRANCHES: 1e6}.get(layout, 100.0)

    def change_s(self, bundle: Bundle, source: Layout, target: Layout) -> float:
        return 0.0 if source is target else 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedVerdict:
    """What came of a case.

    Attributes:
        name: Of the case.
        weights: What became of its inputs.
        layout: The layout that was preferred.
        plain_passed: Whether plain onnxruntime passes it as it is.
        difference: In what the fused graph differs; empty if in nothing.
        refused: Why coinfer does not take the model at all; empty if it does.
        merged: How often operators were merged, by type.
    """

    name: str
    weights: Weights
    layout: Layout
    plain_passed: bool
    difference: str
    refused: str
    merged: Counter[str] = field(default_factory=Counter)


def fused_verdict(case: Case, weights: Weights, layout: Layout, *, passed: bool) -> FusedVerdict:
    """Run a case fused with a copy of itself.

    Args:
        case: The case.
        weights: What becomes of inputs other than the first one.
        layout: Which layout is preferred.
        passed: Whether plain onnxruntime passes the case.
    """
    pairs: list[_Pair] = []

    def prepare(model: onnx.ModelProto) -> _Pair:
        pairs.append(_Pair(model, weights, layout))
        return pairs[-1]

    attempt = case.attempt(prepare)
    refused = next((pair.refused for pair in pairs if pair.refused), "")
    difference = next((pair.difference for pair in pairs if pair.difference), "")
    if passed and not attempt.passed and not refused:
        difference = difference or attempt.problem
    merged: Counter[str] = Counter()
    for pair in pairs:
        merged += pair.merged
    return FusedVerdict(
        name=case.name,
        weights=weights,
        layout=layout,
        plain_passed=passed,
        difference=difference if passed else "",
        refused=refused,
        merged=merged,
    )


def unexplained(verdicts: Iterable[FusedVerdict]) -> list[str]:
    """Describe differences that are not excluded, and refusals that are not known."""
    lines = []
    for each in verdicts:
        if each.difference and not each.refused and each.name not in FUSED_EXCLUSIONS:
            lines.append(f"{each.name} ({each.weights}, {each.layout}): {each.difference}")
        if each.refused and not any(known in each.refused for known, _ in _REFUSALS):
            lines.append(f"{each.name} ({each.weights}): refused: {each.refused}")
    return lines


class _Pair:
    """A model fused with a renamed copy of itself; answers as the first of the two."""

    def __init__(self, model: onnx.ModelProto, weights: Weights, layout: Layout) -> None:
        self._model = model
        self._weights = weights
        self._layout = layout
        self.refused = self.difference = ""
        self.merged: Counter[str] = Counter()

    def run(self, inputs: list[Any]) -> list[Any]:
        one = self._model
        others = [_other(array) for array in inputs]
        stored: Sequence[int] = ()
        if self._weights is Weights.STORED:
            stored = [at for at in range(1, len(inputs)) if isinstance(inputs[at], np.ndarray)]
            fixed = _settings(one)
            others = [
                array if at in stored and (name in fixed or _is_whole(array)) else other
                for at, (name, array, other) in enumerate(
                    zip((value.name for value in one.graph.input), inputs, others, strict=False)
                )
            ]
        twins = [_with_stored(one, inputs, stored), _with_stored(one, others, stored)]
        feeds = [[a for at, a in enumerate(each) if at not in stored] for each in (inputs, others)]
        try:
            wanted = Plain(twins[0]).run(feeds[0])
        except Exception as error:
            self.refused = f"plain onnxruntime does not run it: {error}"
            raise
        try:
            other_wanted = Plain(twins[1]).run(feeds[1])
        except Exception:  # noqa: BLE001  # what the copy is given does not fit: give it the same
            twins[1], feeds[1], other_wanted = twins[0], feeds[0], wanted
        got, other_got = self._fused(twins, feeds)
        self.difference = _difference(got, wanted) or _difference(other_got, other_wanted)
        return got

    def _fused(self, twins: list[onnx.ModelProto], feeds: list[list[Any]]) -> list[list[Any]]:
        try:
            models = [_load(twins[0], "one"), _load(_renamed(twins[1]), "other")]
        except ModelError as error:
            self.refused = str(error)
            raise
        fused = fuse_models(models, costs=Preferring(self._layout))
        for decision in fused.decisions:
            self.merged[decision.op_type] += decision.form is Form.GROUPED
        onnx.checker.check_model(onnx.ModelProto.FromString(fused.model.to_bytes()))
        return _run(fused, models, feeds)


def _run(fused: FusedModel, models: list[Model], feeds: list[list[Any]]) -> list[list[Any]]:
    session = Plain(onnx.ModelProto.FromString(fused.model.to_bytes()))
    outputs = session.run([array for feed in feeds for array in feed])
    count = len(outputs) // 2
    return [outputs[:count], outputs[count:]]


def _load(model: onnx.ModelProto, name: str) -> Model:
    return model_from_bytes(model.SerializeToString(), name=name)


def _settings(model: onnx.ModelProto) -> set[str]:
    """Names of inputs that carry structure: copies must agree in them."""
    import onnx_ir as ir

    graph = ir.from_proto(model).graph
    return {
        node.inputs[at].name or ""
        for node in graph.all_nodes()
        for at in settings_of(node)
        if at < len(node.inputs) and node.inputs[at] is not None
    }


def _is_whole(array: Any) -> bool:
    return array.dtype.kind not in "f"


def _other(array: Any) -> Any:
    """Values of the same range in another order; what has no order stays."""
    if isinstance(array, np.ndarray) and array.ndim:
        return np.ascontiguousarray(np.flip(array))
    return array


def _with_stored(
    model: onnx.ModelProto, inputs: list[Any], stored: Sequence[int]
) -> onnx.ModelProto:
    if not stored:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.ir_version = max(copy.ir_version, 4)
    given = list(copy.graph.input)
    del copy.graph.input[:]
    for at, value in enumerate(given):
        if at in stored:
            tensor = onnx.numpy_helper.from_array(np.array(inputs[at], order="C"), value.name)
            tensor.data_type = value.type.tensor_type.elem_type
            copy.graph.initializer.append(tensor)
        else:
            copy.graph.input.append(value)
    return copy


def _renamed(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.compose.add_prefix(model, "copy_") if not model.functions else model


def _difference(ours: Any, plain: Any) -> str:
    if len(ours) != len(plain):
        return f"{len(ours)} outputs instead of {len(plain)}"
    for mine, theirs in zip(ours, plain, strict=True):
        if isinstance(theirs, np.ndarray):
            problem = _array_difference(mine, theirs)
        else:
            problem = "" if type(mine) is type(theirs) else "another type"
        if problem:
            return problem
    return ""


def _array_difference(ours: Any, plain: np.ndarray[Any, Any]) -> str:
    if ours.dtype != plain.dtype or ours.shape != plain.shape:
        return f"{ours.dtype}{list(ours.shape)} instead of {plain.dtype}{list(plain.shape)}"
    if plain.dtype.kind not in "fV" or plain.dtype.name == "object":
        return "" if np.array_equal(ours, plain) else "other values"
    mine, theirs = ours.astype(np.float64), plain.astype(np.float64)
    finite = np.isfinite(theirs)
    if not np.array_equal(mine[~finite], theirs[~finite], equal_nan=True):
        return "other infinities or NaN"
    gap = float(np.linalg.norm(mine[finite] - theirs[finite]))
    norm = float(np.linalg.norm(theirs[finite]))
    error = gap / norm if norm else gap
    limit = TOLERANCE.get(plain.dtype.name, _ROUGH)
    return "" if error <= limit else f"relative error {error:.2g}, above {limit:g}"
