"""Identity of a measurement: all that it depends on, and nothing that it does not.

Service time and memory depend on a model's structure and not on the values of its weights, so
copies fine-tuned apart share one measurement. The output error of a lower precision depends on the
weights and on the sample inputs, too. Names of models and processors and the numbers of equal cores
decide nothing, unless the backend states no versions: it may then be anything, as in tests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from coinfer.backends.base import Backend, Tensors, caller_cores
from coinfer.documents.digest import digest_of
from coinfer.machine.processor import Processor
from coinfer.model import Model

__all__ = ["identity", "key_parts", "output_parts"]


def identity(parts: Mapping[str, object]) -> str:
    """Return a digest of a key, usable as a file name.

    >>> identity({"a": 1, "b": 2}) == identity({"b": 2, "a": 1})
    True
    """
    return digest_of(parts)


def key_parts(
    name: str,
    model: Model,
    processor: Processor,
    batch: int,
    samples: Sequence[Tensors],
    backend: Backend,
    machine: str,
) -> dict[str, object]:
    """Return all that a measurement depends on, as values that `json.dumps` writes."""
    versions = backend.versions()
    parts: dict[str, object] = {
        "structure": model.fingerprint.structure,
        "backend": processor.backend,
        "device": processor.device,
        "threads": processor.threads,
        "precision": processor.precision,
        "options": dict(processor.options),
        "batch": batch,
        "shapes": [{n: list(sample[n].shape) for n in sorted(sample)} for sample in samples],
        "versions": dict(versions),
        "machine": machine,
    }
    if caller_cores(backend, processor) != processor.cores:
        parts["pool"] = "pinned"
    if processor.device == "CPU" and not processor.cores:
        parts["worker"] = "not pinned"
    if layout := _layout(backend, model, processor):
        parts["layout"] = layout
    if processor.spread:
        parts["spread"] = processor.spread
    if processor.precision != "fp32":
        parts |= output_parts(model, samples)
    if model.borders:  # there a library need not convert, so it takes another time
        specs = (*model.inputs, *model.outputs)
        parts["borders"] = [at for at, s in enumerate(specs) if s.name in model.borders]
    if not versions:
        parts |= {"model": name, "processor": processor.name}
    return parts


def _layout(backend: Backend, model: Model, processor: Processor) -> object:
    """Return the version of the form in which a backend keeps a prepared model: times differ."""
    ask: Callable[[Model, Processor], Mapping[str, object] | None] | None
    ask = getattr(backend, "artefact_parts", None)
    parts = None if ask is None else ask(model, processor)
    return None if parts is None else parts.get("layout")


def output_parts(model: Model, samples: Sequence[Tensors]) -> dict[str, object]:
    """Return what outputs depend on and times do not."""
    return {"weights": model.fingerprint.weights, "samples": _digest(samples)}


def _digest(samples: Sequence[Tensors]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for sample in samples:
        for name in sorted(sample):
            digest.update(name.encode())
            array = np.ascontiguousarray(sample[name])
            strings = array.dtype == object  # of which the bytes are addresses
            digest.update(repr(array.tolist()).encode() if strings else array.tobytes())
    return digest.hexdigest()
