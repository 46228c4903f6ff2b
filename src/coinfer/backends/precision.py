"""What a model computes in by itself, and the refusal of precisions. Knows no inference library."""

from __future__ import annotations

from coinfer.backends.base import Device
from coinfer.errors import BackendError
from coinfer.machine.processor import Processor
from coinfer.model import Model

__all__ = ["native_precision", "require_quantised_for_int8", "require_reported"]

_QUANTISED_OPERATORS = frozenset(
    {
        "ConvInteger",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "MatMulInteger",
        "QLinearConv",
        "QLinearMatMul",
        "QuantizeLinear",
    }
)
_NAMES = {"FLOAT": "fp32", "FLOAT16": "fp16", "BFLOAT16": "bf16", "DOUBLE": "fp64"}


def native_precision(model: Model) -> str:
    """Return `int8` for a quantised model, otherwise the type of most of its weights.

    A model without floating-point weights counts as `fp32`.
    """
    summary = model.summary
    if not summary.op_types.isdisjoint(_QUANTISED_OPERATORS):
        return "int8"
    sizes = {ours: summary.weight_elements.get(theirs, 0) for theirs, ours in _NAMES.items()}
    most = max(sizes, key=lambda name: sizes[name])
    return most if sizes[most] else "fp32"


def require_quantised_for_int8(model: Model, processor: Processor) -> None:
    """Refuse to run a model in int8 that holds no quantised operators.

    Raises:
        BackendError: the processor is an int8 one and the model is not quantised.
    """
    if processor.precision == "int8" and native_precision(model) != "int8":
        raise BackendError(
            f"model {model.name!r} on processor {processor.name!r}: int8 needs a quantised model "
            f"and this one has no QuantizeLinear or DequantizeLinear; quantise it first, e.g. "
            f"with onnxruntime.quantization.quantize_static, or use precision fp32"
        )


def require_reported(device: Device, model: Model, processor: Processor) -> None:
    """Refuse a precision that the device does not report: it would be emulated, slowly.

    Raises:
        BackendError: the device does not report the processor's precision.
    """
    if processor.precision not in device.precisions:
        raise BackendError(
            f"model {model.name!r} on processor {processor.name!r}: device {device.name} of "
            f"{processor.backend} ({device.description}) reports no {processor.precision}; use "
            f"one of {', '.join(device.precisions)}"
        )
