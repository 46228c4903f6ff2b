"""The processors that a machine has by default. Asks backends for devices; runs nothing.

Names: `cpu0`, `cpu1`, ... and `cpu_all` run onnxruntime, `ov0`, `ov1`, ... and `ov_all` run
OpenVINO, and another backend's processors begin with its name. The number counts the cores to use
from 0 by locality, whatever the system calls them, so that a scenario fits any machine; units and
`cores` have the system's numbers. `cpu0-3` runs on cores 0 to 3 together. Accelerators are `cuda0`,
`ov_gpu0`, ...; of an NVIDIA GPU, `gpu0` with torch, there are also `cuda0_s1`, `cuda0_s2` and
`gpu0_s1`, `gpu0_s2`: streams that run together. `gpu0_1of2` and `gpu0_2of2` are disjoint shares of
its multiprocessors, which are there if they are asked for. A precision below fp32 is a suffix:
`ov0_bf16`. An express processor has the name of the one below it and a plus: `cpu0+`; those of a
GPU, `gpu0+`, `gpu0_s1+`, ..., are one stream of high priority.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from coinfer.backends import Backend, Device, get_backend
from coinfer.backends.registry import check_devices
from coinfer.hardware.cores import Cores, find_cores
from coinfer.hardware.installed import installed
from coinfer.machine.core_groups import core_groups
from coinfer.machine.processor import WAKE_S, Processor

__all__ = ["default_processors"]

_PREFIXES = {"onnxruntime": "cpu", "openvino": "ov"}
_ONLY_WHEN_NAMED = frozenset({"torch"})
"""Backends whose CPU is there to compare and to fall back on: others are faster on these cores."""

_STREAMING = {"onnxruntime": "cuda", "torch": "gpu"}
"""Backends that have streams on NVIDIA GPUs, and what these processors are called."""

_STREAM_NAMES = ("s1", "s2")
"""Streams of a GPU that are processors of their own. More can be described in a scenario."""

_SAME_HARDWARE = {"tensorrt": "cuda", "nvtensorrtrtx": "cuda"}
"""Execution providers that use the device of another one."""


def default_processors(
    backends: Iterable[str] | None = None,
    *,
    cores: Cores | None = None,
    precisions: Iterable[str] = ("fp32",),
    preempt: bool = False,
    shares: int = 0,
) -> tuple[Processor, ...]:
    """List what can run models here.

    Per backend with a CPU device: one per group of cores that is worth using together
    (`core_groups`): a 1-thread processor per core, and on two cores one over both. Per accelerator:
    one processor, and of an NVIDIA GPU two streams. torch's CPU counts only if it is named.

    Args:
        backends: Names of backends; every installed one except `null` if None.
        cores: The cores to use; found if None.
        precisions: Precisions that the user allows; a device gets those of them that it reports.
        preempt: Add an express processor on top of each processor of one core, and of a GPU by
            torch.
        shares: Into how many disjoint shares each GPU of torch is split; 0: it is not.

    Raises:
        UnknownNameError: a backend of `backends` does not exist.
        BackendError: a backend of `backends` is not installed.
    """
    cores = find_cores() if cores is None else cores
    allowed = tuple(precisions)
    names = None if backends is None else tuple(backends)
    found = tuple(
        processor
        for backend in _installed(names)
        for device in _used_devices(backend.devices())
        if names is not None or device.kind != "cpu" or backend.name not in _ONLY_WHEN_NAMED
        for precision in allowed
        if precision in device.precisions
        for processor in _processors(backend.name, device, cores, precision, shares)
    )
    return (*found, *_express(found, cores)) if preempt else found


def _express(processors: Iterable[Processor], cores: Cores) -> Iterator[Processor]:
    """One on top of each of one core or of a GPU's; those of one core or GPU exclude each other."""
    own = {frozenset({f"core{n}"}): frozenset({f"core{n}+"}) for n in cores.numbers}
    for twin in processors:
        if twin.units in own:
            yield dataclasses.replace(
                twin, name=f"{twin.name}+", units=own[twin.units], overlays=twin.units
            )
        elif twin.backend == "torch" and twin.device != "CPU" and not twin.options:
            yield dataclasses.replace(
                twin,
                name=f"{twin.name}+",
                units=frozenset({f"{twin.device.lower()}+"}),
                overlays=twin.units,
                options={"priority": "high"},
            )


def _installed(names: Iterable[str] | None) -> list[Backend]:
    if names is not None:
        backends = [get_backend(name) for name in dict.fromkeys(names)]
        for backend in backends:
            check_devices(backend)
        return backends
    return [backend for backend in installed() if backend.name != "null"]


def _used_devices(devices: tuple[Device, ...]) -> Iterator[Device]:
    """All accelerators and the first CPU: others are second libraries for the same cores."""
    cpus = [device for device in devices if device.kind == "cpu"]
    yield from cpus[:1]
    yield from (device for device in devices if device.kind != "cpu")


def _processors(
    backend: str, device: Device, cores: Cores, precision: str, shares: int
) -> Iterator[Processor]:
    suffix = "" if precision == "fp32" else f"_{precision}"
    if device.kind != "cpu" and device.name.startswith("CUDA:") and backend in _STREAMING:
        yield from _streams(backend, device, precision, suffix, shares)
        return
    if device.kind != "cpu":
        yield _accelerator(backend, device, precision, suffix, shares)
        return
    prefix = _PREFIXES.get(backend, backend)
    for which, numbers, spread in core_groups(cores.layout):
        yield Processor(
            name=f"{prefix}{which}{suffix}",
            backend=backend,
            device=device.name,
            units=frozenset(f"core{number}" for number in numbers),
            threads=len(numbers),
            precision=precision,
            cores=numbers if cores.pinnable else (),
            spread=spread,
            wake_s=WAKE_S,
        )


def _streams(
    backend: str, device: Device, precision: str, suffix: str, shares: int
) -> Iterator[Processor]:
    """The whole GPU, on which nothing else runs meanwhile, streams that share it, and shares."""
    number = device.name.partition(":")[2]
    unit = f"cuda:{number}"
    kinds = {"": _units_of_gpu(unit, shares)}
    kinds |= {f"_{each}": frozenset({f"{unit}.{each}"}) for each in _STREAM_NAMES}
    parts = _share_names(shares) if backend == "torch" else []
    kinds |= {f"_{part}": frozenset({f"{unit}.{part}"}) for part in parts}
    for which, units in kinds.items():
        yield Processor(
            name=f"{_STREAMING[backend]}{number}{which}{suffix}",
            backend=backend,
            device=device.name,
            units=units,
            precision=precision,
            options={"share": which[1:]} if which[1:] in parts else {},
        )


def _share_names(shares: int) -> list[str]:
    return [f"{at}of{shares}" for at in range(1, shares + 1)]


def _units_of_gpu(unit: str, shares: int) -> frozenset[str]:
    """Return all units of an NVIDIA GPU, whoever uses them."""
    return frozenset(
        {unit, *(f"{unit}.{each}" for each in (*_STREAM_NAMES, *_share_names(shares)))}
    )


def _accelerator(
    backend: str, device: Device, precision: str, suffix: str, shares: int
) -> Processor:
    base, _, number = device.name.lower().replace(".", ":").partition(":")
    prefix = "" if backend == "onnxruntime" else f"{_PREFIXES.get(backend, backend)}_"
    unit = f"{_SAME_HARDWARE.get(base, base)}:{number or 0}"
    return Processor(
        name=f"{prefix}{base}{number}{suffix}",
        backend=backend,
        device=device.name,
        units=_units_of_gpu(unit, shares) if base in _SAME_HARDWARE else frozenset({unit}),
        precision=precision,
    )
