"""Diagnosis: what was found on this machine, and what should be repaired. Prints nothing."""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple

from coinfer.backends import Availability, available
from coinfer.hardware.catalogue import default_processors
from coinfer.hardware.cores import Cores, find_cores
from coinfer.hardware.environment import describe, onnxruntime_wheels, thread_variables
from coinfer.hardware.nvidia import find_nvidia
from coinfer.hardware.trial import why_unusable
from coinfer.machine.machine import Machine
from coinfer.machine.machine_json import encode_processor
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.machine.topology_data import encode_topology
from coinfer.threads.pinning import can_pin

__all__ = ["Diagnosis", "Finding", "Severity", "diagnose"]

_SHOWN = ("backend", "device", "units", "threads", "precision", "cores")
"""Fields of a processor."""


class Severity(enum.StrEnum):
    """How much a finding matters."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Finding(NamedTuple):
    """Something to mend or to know.

    Attributes:
        severity: `ERROR` if nothing can run, `WARNING` if results suffer, `NOTE` otherwise.
        text: What was found.
        remedy: What to do about it; empty if nothing needs to be done.
    """

    severity: Severity
    text: str
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Everything that `coinfer doctor` shows.

    Attributes:
        environment: See `environment.describe`.
        cores: The cores to use and the reason for their number.
        pinning: Whether a thread could be pinned to each core and reported so.
        backends: Every known backend, usable or not.
        processors: The default processors.
        findings: What to mend or to know, the worst first.
    """

    environment: dict[str, Any]
    cores: Cores
    pinning: bool
    backends: tuple[Availability, ...]
    processors: tuple[Processor, ...]
    findings: tuple[Finding, ...]

    @property
    def machine(self) -> Machine:
        """The machine as other programs may read it: topology and processors, nothing measured."""
        return Machine(
            name=self.environment["cpu"],
            processors=self.processors,
            profile=Profile(),
            topology=self.cores.topology,
        )

    @property
    def usable(self) -> bool:
        """Whether models can run here at all."""
        return all(finding.severity is not Severity.ERROR for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return a value that `json.dumps` writes."""
        topology = self.cores.topology
        return {
            "usable": self.usable,
            "environment": self.environment,
            "cores_reason": self.cores.reason,
            "topology": None if topology is None else encode_topology(topology),
            "pinning": self.pinning,
            "backends": {each.name: _backend_json(each) for each in self.backends},
            "processors": {p.name: _processor_json(p) for p in self.processors},
            "findings": [finding._asdict() for finding in self.findings],
        }


def diagnose() -> Diagnosis:
    """Look at cores, backends, processors and conflicts; pin a thread of its own as a test."""
    cores = find_cores()
    backends = available()
    pinning = can_pin(cores.numbers)
    findings = (
        *_backend_findings(backends),
        *_wheel_findings(onnxruntime_wheels()),
        *_variable_findings(thread_variables(os.environ)),
        *_core_findings(cores, pinning),
        *_gpu_findings(backends),
        *_extra_findings(),
    )
    return Diagnosis(
        environment=describe(cores=cores),
        cores=cores,
        pinning=pinning,
        backends=backends,
        processors=default_processors(cores=cores),
        findings=tuple(sorted(findings, key=lambda f: list(Severity).index(f.severity))),
    )


def _backend_findings(backends: tuple[Availability, ...]) -> Iterator[Finding]:
    if not any(each.backend for each in backends if each.name != "null"):
        yield Finding(Severity.ERROR, "no backend can run models", "pip install onnxruntime")
    for each in backends:
        if each.backend is None:
            yield Finding(Severity.NOTE, each.problem)


def _wheel_findings(wheels: tuple[str, ...]) -> Iterator[Finding]:
    if len(wheels) > 1:
        yield Finding(
            Severity.WARNING,
            f"{' and '.join(wheels)} are installed together and overwrite each other's files",
            f"pip uninstall {' '.join(wheels)}, then install the one that you need",
        )


def _variable_findings(variables: dict[str, str]) -> Iterator[Finding]:
    for name, value in variables.items():
        yield Finding(
            Severity.WARNING,
            f"{name}={value} sizes or pins thread pools that coinfer does not govern",
            f"unset {name}",
        )


def _core_findings(cores: Cores, pinning: bool) -> Iterator[Finding]:
    if cores.quota is not None and not cores.pinnable:
        yield Finding(
            Severity.NOTE,
            f"the container's quota of {cores.quota:g} is below its {cores.physical} cores, "
            f"so {len(cores.numbers)} are used and threads are not pinned",
            "give the container whole cores (a cpuset) for steadier latencies",
        )
    elif not pinning:
        yield Finding(
            Severity.NOTE,
            "threads cannot be pinned to cores here; everything works, latencies vary more",
        )


def _gpu_findings(backends: tuple[Availability, ...]) -> Iterator[Finding]:
    usable = [each.backend for each in backends if each.backend is not None]
    gpus = [(b, d) for b in usable if b.name != "null" for d in b.devices() if d.kind == "gpu"]
    why = {(b.name, d.name): why_unusable(b, d) for b, d in gpus}
    cuda = [name for (_, name), reason in why.items() if name.startswith("CUDA") and not reason]
    torch = next((each.versions()["torch"] for each in usable if each.name == "torch"), None)
    nvidia = find_nvidia()
    problem = nvidia.problem(cuda, torch)
    if problem is not None:
        yield Finding(Severity.NOTE, *problem)
    ours = {d: reason for (b, d), reason in why.items() if (b, d[:4]) == ("onnxruntime", "CUDA")}
    failures = tuple(filter(None, ours.values()))
    missing = nvidia.onnxruntime_problem(onnxruntime_wheels(), failures, has_provider=bool(ours))
    if missing is not None:
        yield Finding(Severity.WARNING if failures else Severity.NOTE, *missing)
    for (backend, device), reason in why.items():
        if reason and (missing is None or reason not in failures):
            yield Finding(Severity.WARNING, f"{backend} cannot run anything on {device}: {reason}")


def _extra_findings() -> Iterator[Finding]:
    if find_spec("PIL") is None:
        yield Finding(
            Severity.NOTE,
            "PIL is not installed; it is needed to read folders of images",
            "pip install 'coinfer[images]'",
        )


def _backend_json(each: Availability) -> dict[str, Any]:
    if each.backend is None:
        return {"usable": False, "problem": each.problem}
    devices = [
        asdict(device) | {"precisions": list(device.precisions)}
        for device in each.backend.devices()
    ]
    return {"usable": True, "versions": dict(each.backend.versions()), "devices": devices}


def _processor_json(processor: Processor) -> dict[str, Any]:
    fields = encode_processor(processor)
    return {name: fields[name] for name in _SHOWN}
