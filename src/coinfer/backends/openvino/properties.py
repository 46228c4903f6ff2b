"""Properties: what a processor asks of a compiled model, and what that really has."""

from __future__ import annotations

from typing import Any

from coinfer.backends.base import Device
from coinfer.errors import BackendError
from coinfer.machine.processor import Processor

__all__ = ["CAPABILITIES", "RUNTIME", "hint_of", "properties_of", "require_hint"]

CAPABILITIES = {"FP32": "fp32", "BF16": "bf16", "FP16": "fp16", "INT8": "int8"}
_HINTS = {"fp32": "f32", "int8": "f32", "bf16": "bf16", "fp16": "f16"}
"""Precision of the operators that are not quantised, by the processor's precision."""

RUNTIME = {"f32": "fp32", "bf16": "bf16", "f16": "fp16", "i8": "int8", "u8": "int8"}
"""Our precision by the library's."""

_GOVERNED = frozenset(
    {"ENABLE_CPU_PINNING", "INFERENCE_NUM_THREADS", "INFERENCE_PRECISION_HINT", "NUM_STREAMS"}
)
"""Properties that follow from the processor's fields and must not contradict them."""


def properties_of(processor: Processor, device: Device, what: str) -> dict[str, Any]:
    """Return the properties of a model that is compiled for a processor.

    Raises:
        BackendError: an option contradicts the processor's fields.
    """
    if contradicting := sorted(_GOVERNED & processor.options.keys()):
        raise BackendError(
            f"{what}: option {contradicting[0]} follows from the processor; set its threads, "
            f"cores or precision instead"
        )
    properties: dict[str, Any] = {"INFERENCE_PRECISION_HINT": _HINTS[processor.precision]}
    if device.kind == "cpu":
        properties |= {
            "NUM_STREAMS": 1 if processor.threads > 1 else 0,
            "INFERENCE_NUM_THREADS": processor.threads,
            "ENABLE_CPU_PINNING": False,
        }
    return properties | dict(processor.options)


def require_hint(compiled: Any, wanted: str, what: str) -> None:
    """Refuse a compiled model that computes in another precision.

    Raises:
        BackendError: it does.
    """
    # The CPU plugin accepts f16 and computes in f32: only reading it back tells.
    if (got := hint_of(compiled)) != wanted:
        raise BackendError(
            f"{what}: openvino was asked for {wanted} and computes in {got}; use precision "
            f"{RUNTIME.get(got, got)}"
        )


def hint_of(compiled: Any) -> str:
    """Return the precision of what is not quantised, as the library calls it."""
    return str(compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())
