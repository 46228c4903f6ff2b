"""Placing: read back from a compiled model what it runs, in what precision, on how many threads."""

from __future__ import annotations

from collections import Counter
from typing import Any

from coinfer.backends.base import Placement
from coinfer.backends.openvino.properties import RUNTIME, hint_of

__all__ = ["placement_of"]

_ARITHMETIC = frozenset(
    {
        "Convolution",
        "Deconvolution",
        "FullyConnected",
        "MatMul",
        "RNNCell",
        "RNNSeq",
        "ScaledDotProductAttention",
    }
)
"""Layer types of the executable graph whose precision decides speed and error."""

_NOT_OPERATORS = frozenset({"Input", "Const", "Output"})


def placement_of(compiled: Any) -> Placement:
    """Read the executable graph back: operators, the arithmetic's precision, threads."""
    layers = [_layer(node) for node in compiled.get_runtime_model().get_ordered_ops()]
    devices = ",".join(compiled.get_property("EXECUTION_DEVICES"))
    return Placement(
        operators={devices: sum(kind not in _NOT_OPERATORS for kind, _ in layers)},
        precision=_precision(layers, hint_of(compiled)),
        threads=_threads(compiled),
    )


def _layer(node: Any) -> tuple[str, str]:
    info = node.get_rt_info()
    return str(info["layerType"].value), str(info["runtimePrecision"].value)


def _precision(layers: list[tuple[str, str]], hint: str) -> str:
    counts = Counter(precision for kind, precision in layers if kind in _ARITHMETIC)
    if any(RUNTIME.get(precision) == "int8" for precision in counts):
        return "int8"
    found = counts.most_common(1)[0][0] if counts else hint
    return RUNTIME.get(found, found)


def _threads(compiled: Any) -> int:
    # Without a stream the run stays in the calling thread, whatever the other property says.
    on_cpu = "CPU" in compiled.get_property("EXECUTION_DEVICES")
    if not on_cpu or int(compiled.get_property("NUM_STREAMS")) == 0:
        return 1
    streams = int(compiled.get_property("NUM_STREAMS"))
    return int(compiled.get_property("INFERENCE_NUM_THREADS")) // streams
