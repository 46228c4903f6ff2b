"""Tiny models with a numpy reference, for tests of backends and engines. Knows no backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from coinfer.model import Model, model_from_ir

__all__ = [
    "Example",
    "examples",
    "fixed_batch",
    "int_gather",
    "model_from_text",
    "quantised_linear",
    "tiny_conv",
    "tiny_linear",
    "two_convs",
    "two_inputs",
    "unsupported",
]

_Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A model and what it must compute.

    Attributes:
        model: The model.
        reference: Computes the outputs from the inputs with numpy.
    """

    model: Model
    reference: Callable[[_Arrays], dict[str, npt.NDArray[Any]]]


def model_from_text(text: str, *, name: str) -> Model:
    """Build a model from ONNX's text format; the header is added if it has none.

    >>> model_from_text("agraph (float[N] x) => (float[N] y) { y = Relu(x) }", name="r").name
    'r'
    """
    import onnx.parser
    import onnx_ir as ir

    header = "" if text.lstrip().startswith("<") else '<ir_version: 10, opset_import: ["" : 20]>'
    return model_from_ir(ir.from_proto(onnx.parser.parse_model(header + text)), name=name)


def examples() -> tuple[Example, ...]:
    """Return one of each kind of model that every computing backend must run."""
    return (tiny_linear(), two_inputs(), int_gather(), tiny_conv(), fixed_batch())


def _example(
    name: str, text: str, reference: Callable[[_Arrays], dict[str, npt.NDArray[Any]]]
) -> Example:
    return Example(model=model_from_text(text, name=name), reference=reference)


def tiny_linear(name: str = "tiny_linear") -> Example:
    """Return y[N,3] = x[N,4] w + b."""
    rng = np.random.default_rng(7)
    w, b = _random(rng, 4, 3), _random(rng, 3)
    text = f"""agraph (float[N,4] x) => (float[N,3] y)
        <float[4,3] w = {_literal(w)}, float[3] b = {_literal(b)}>
        {{ p = MatMul(x, w)  y = Add(p, b) }}"""
    return _example(name, text, lambda x: {"y": x["x"] @ w + b})


def two_inputs() -> Example:
    """Return total = a + b and product = a * b, both [N,5]; the graph computes the last first."""
    text = """agraph (float[N,5] a, float[N,5] b) => (float[N,5] product, float[N,5] total)
        { total = Add(a, b)  product = Mul(a, b) }"""
    return _example(
        "two_inputs", text, lambda x: {"total": x["a"] + x["b"], "product": x["a"] * x["b"]}
    )


def int_gather() -> Example:
    """Return rows[N,3,5] of a table picked by int64 ids[N,3]."""
    table = _random(np.random.default_rng(8), 8, 5)
    text = f"""agraph (int64[N,3] ids) => (float[N,3,5] rows)
        <float[8,5] table = {_literal(table)}>
        {{ rows = Gather<axis = 0>(table, ids) }}"""
    return _example("int_gather", text, lambda x: {"rows": table[x["ids"]]})


def tiny_conv() -> Example:
    """Return y[N,4,6,6], a 3x3 convolution of x[N,2,8,8] without padding."""
    w = _random(np.random.default_rng(9), 4, 2, 3, 3)
    text = f"""agraph (float[N,2,8,8] x) => (float[N,4,6,6] y)
        <float[4,2,3,3] w = {_literal(w)}> {{ y = Conv(x, w) }}"""
    return _example("tiny_conv", text, lambda x: {"y": _convolved(x["x"], w)})


def two_convs() -> Example:
    """Return y[N,4,6,6], a 1x1 convolution of the positive part of a 3x3 one of x[N,4,8,8].

    Three operators; what lies between them has 16 channels, as many as libraries keep together.
    """
    rng = np.random.default_rng(11)
    v, w = _random(rng, 16, 4, 3, 3), _random(rng, 4, 16, 1, 1)
    text = f"""agraph (float[N,4,8,8] x) => (float[N,4,6,6] y)
        <float[16,4,3,3] v = {_literal(v)}, float[4,16,1,1] w = {_literal(w)}>
        {{ a = Conv(x, v)  b = Relu(a)  y = Conv(b, w) }}"""
    return _example(
        "two_convs", text, lambda x: {"y": _convolved(np.maximum(_convolved(x["x"], v), 0), w)}
    )


def fixed_batch() -> Example:
    """Return y[2,3] = x[2,3] * 2; the batch is not open."""
    text = "agraph (float[2,3] x) => (float[2,3] y) <float two = {2}> { y = Mul(x, two) }"
    return _example("fixed_batch", text, lambda x: {"y": x["x"] * 2})


def quantised_linear() -> Example:
    """Return y[N,3] = x[N,4] w with both factors quantised to 8 bits (scale 1/64, w exact)."""
    q = np.random.default_rng(10).integers(-64, 64, (4, 3)).astype(np.int8)
    text = f"""agraph (float[N,4] x) => (float[N,3] y)
        <float scale = {{0.015625}}, int8 zero = {{0}}, int8[4,3] q = {_literal(q)}>
        {{ xq = QuantizeLinear(x, scale, zero)  xf = DequantizeLinear(xq, scale, zero)
           wf = DequantizeLinear(q, scale, zero)  y = MatMul(xf, wf) }}"""

    def reference(x: _Arrays) -> dict[str, npt.NDArray[Any]]:
        rounded = np.clip(np.rint(x["x"] * 64), -128, 127).astype(np.float32) / 64
        return {"y": rounded @ (q.astype(np.float32) / 64)}

    return _example("quantised_linear", text, reference)


def unsupported() -> Model:
    """Return a valid model with an operator of a domain that no backend has."""
    return model_from_text(
        """<ir_version: 10, opset_import: ["" : 20, "example.unknown" : 1]>
        agraph (float[N] x) => (float[N] y) { y = example.unknown.Nothing(x) }""",
        name="unsupported",
    )


def _convolved(x: npt.NDArray[Any], w: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(2, 3))
    convolved: npt.NDArray[Any] = np.einsum("ncijkl,ockl->noij", windows, w)
    return convolved


def _random(rng: np.random.Generator, *shape: int) -> npt.NDArray[np.float32]:
    return rng.standard_normal(shape).astype(np.float32)


def _literal(array: npt.NDArray[Any]) -> str:
    # Nine digits identify a float32 exactly.
    return "{" + ", ".join(f"{value:.9g}" for value in array.ravel()) + "}"
