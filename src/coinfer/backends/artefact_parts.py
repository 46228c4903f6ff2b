"""Artefact parts: what all artefacts depend on, whichever library made them."""

from __future__ import annotations

from collections.abc import Mapping

from coinfer.artefacts import Lease, default_store
from coinfer.artefacts.cpu import cpu_type
from coinfer.backends.base import Backend
from coinfer.errors import ModelError
from coinfer.machine.processor import Processor
from coinfer.model import Model
from coinfer.model.fingerprint import ALGORITHM

__all__ = ["LEAST_WEIGHT_BYTES", "common_parts", "lease_of"]

LEAST_WEIGHT_BYTES = 2**22
"""Smaller models are prepared within some ten milliseconds, and sharing them saves little."""

_FORMAT = 1
"""Raised when an artefact of the same key would be another one."""


def common_parts(backend: Backend, model: Model, processor: Processor) -> dict[str, object] | None:
    """Return the parts of a key; None if none is worth it, or nobody can tell what the model is.

    The fingerprint stands for graph, weights, and names and shapes of inputs and outputs.
    """
    if model.weight_bytes < LEAST_WEIGHT_BYTES:
        return None
    try:
        fingerprint = model.fingerprint.full
    except ModelError:  # a library may read what `onnx_ir` cannot
        return None
    specs = (*model.inputs, *model.outputs)
    return {
        "format": _FORMAT,
        "backend": backend.name,
        "versions": dict(backend.versions()),
        "fingerprint": [ALGORITHM, fingerprint],
        "borders": [at for at, spec in enumerate(specs) if spec.name in model.borders],
        "device": processor.device,
        "precision": processor.precision,
        "cpu": cpu_type(),
    }


def lease_of(parts: Mapping[str, object] | None) -> Lease | None:
    """Open the artefact of a key; None if there is no key, or no artefact of it."""
    return None if parts is None else default_store().open(parts)
