"""Providers: the execution providers of the installed wheel, and the devices they stand for."""

from __future__ import annotations

from collections.abc import Mapping

from coinfer.backends.base import Device
from coinfer.backends.cuda_driver import gpu_names
from coinfer.backends.onnxruntime.library import ort
from coinfer.errors import BackendError
from coinfer.machine.processor import Processor

__all__ = ["CPU_PROVIDER", "CUDA_PROVIDER", "Provider", "devices", "provider_of"]

Provider = tuple[str, dict[str, str]]
"""Name and options of an execution provider."""

_SUFFIX = "ExecutionProvider"
_CPU = "CPU"
CPU_PROVIDER = _CPU + _SUFFIX
_REMOTE = "Azure"
"""Not a device: it forwards requests to a service."""

_GPUS = ("CUDA", "Tensorrt", "NvTensorRTRTX", "MIGraphX", "Dml", "WebGpu")
_NPUS = ("CoreML", "QNN", "VitisAI", "CANN", "Rknpu", "Nnapi")
"""Anything else computes on the CPU."""

CUDA_PROVIDER = "CUDA" + _SUFFIX

_BY_CUDA = ("CUDA", "Tensorrt", "NvTensorRTRTX")
"""Those on NVIDIA GPUs, which CUDA's driver numbers."""

_DEFAULTS: Mapping[str, Mapping[str, str]] = {
    # TensorFloat-32 keeps 10 bits of the mantissa. By powers of two, memory would be taken in
    # pieces that are up to twice as large as what is needed.
    CUDA_PROVIDER: {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}
}
"""What a provider is told unless a processor says otherwise."""


def devices() -> tuple[Device, ...]:
    """Return a device per installed execution provider and NVIDIA GPU, the CPU first.

    A wheel has the providers of NVIDIA GPUs whether or not there is one: CUDA's driver is asked.
    """
    found: list[Device] = []
    for provider in ort.get_available_providers():
        base = provider.removesuffix(_SUFFIX)
        if base in _BY_CUDA:
            found += [_device(base, number, name) for number, name in enumerate(gpu_names())]
        elif base != _REMOTE:
            found.append(_device(base))
    return tuple(sorted(found, key=lambda device: device.name != _CPU))


def provider_of(processor: Processor, what: str) -> Provider:
    """Return the provider that a processor's device is of, with the options that it gets.

    The processor's own options go above what this backend tells the provider.

    Raises:
        BackendError: this onnxruntime does not have it, or it has no option of some name.
    """
    wanted = processor.device.partition(":")[0] + _SUFFIX
    installed = ort.get_available_providers()
    for provider in installed:
        if provider.lower() == wanted.lower():
            return str(provider), _options(processor, str(provider), what)
    known = ", ".join(p.removesuffix(_SUFFIX) for p in installed if p != _REMOTE + _SUFFIX)
    raise BackendError(
        f"{what}: this onnxruntime has no device {processor.device!r}, only {known}; install the "
        f"onnxruntime wheel that has it in place of the present one, or use another device"
    )


def _options(processor: Processor, provider: str, what: str) -> dict[str, str]:
    given = {key: value for key, value in processor.options.items() if "." not in key}
    if provider == CPU_PROVIDER:
        if given:
            # The CPU provider would ignore the option silently.
            raise BackendError(
                f"{what}: the CPU provider has no option {sorted(given)[0]!r}; options of the "
                f"session have a dot, such as session.set_denormal_as_zero"
            )
        return {}
    number = processor.device.partition(":")[2]
    defaults = dict(_DEFAULTS.get(provider, {})) | ({"device_id": number} if number else {})
    return defaults | given


def _device(base: str, number: int = 0, card: str = "") -> Device:
    kind = "gpu" if base in _GPUS else "npu" if base in _NPUS else "cpu"
    name = base if kind == "cpu" else f"{base}:{number}"
    description = f"{base} execution provider of onnxruntime{card and f' on {card}'}"
    return Device(name=name, kind=kind, precisions=("fp32", "int8"), description=description)
