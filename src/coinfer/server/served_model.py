"""ServedModel: one version of a model as clients see it. A value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from coinfer.core.request import OnLate
from coinfer.model import Model
from coinfer.model.datatypes import datatype_of
from coinfer.model.specs import TensorSpec

__all__ = ["MOST_BATCH", "PLATFORM", "ServedModel", "served"]

PLATFORM = "onnx_onnxv1"
"""What the protocol calls the kind of a model that is no ensemble."""

MOST_BATCH = 1024
"""Samples of one request, where nothing else is said."""

_ANY = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """One version of a model as clients see it.

    Attributes:
        name: What clients call the model.
        version: A number as a text.
        engine_name: What the engine calls it.
        inputs: What a request gives.
        outputs: What an answer has.
        optional: Names of the inputs that may be left out.
        most_batch: Samples that a request may have; 0: the model has no batch axis.
        priority: Of requests that name none; larger is more urgent.
        level: The priority of the protocol that is as urgent as that; smaller ones are more so.
        deadline_s: Seconds that a request has which names no other deadline; None: it has none.
        on_late: What becomes of a request with that deadline if it passes before the start.
        labels: By output, a name for each of its classes.
        config: What the model's own configuration adds to what `/config` tells.
        platform: What the protocol calls its kind: a model, or `ensemble`.
    """

    name: str
    engine_name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    version: str = "1"
    optional: frozenset[str] = frozenset()
    most_batch: int = 0
    priority: int = 0
    level: int = 10
    deadline_s: float | None = None
    on_late: OnLate = OnLate.RUN
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    platform: str = PLATFORM

    def metadata(self, versions: list[str]) -> dict[str, Any]:
        """Return what the protocol calls the metadata of a model."""
        return {
            "name": self.name,
            "versions": versions,
            "platform": self.platform,
            "inputs": [_tensor_metadata(spec) for spec in self.inputs],
            "outputs": [_tensor_metadata(spec) for spec in self.outputs],
        }

    def configuration(self) -> dict[str, Any]:
        """Return Triton's `ModelConfig` as JSON, with the field names of its protobuf message."""
        skipped = 1 if self.most_batch else 0
        inputs = [
            {**_tensor_config(spec, skipped), "optional": spec.name in self.optional}
            for spec in self.inputs
        ]
        return {
            "name": self.name,
            "platform": self.platform,
            "backend": "onnxruntime" if self.platform == PLATFORM else "",
            "max_batch_size": self.most_batch,
            "input": inputs,
            "output": [_tensor_config(spec, skipped) for spec in self.outputs],
            **self.config,
        }


def served(name: str, model: Model, *, engine_name: str = "", **how: Any) -> ServedModel:
    """Describe a model to clients.

    Args:
        name: What clients call it.
        model: The model.
        engine_name: What the engine calls it; empty: the same.
        how: Other attributes of `ServedModel`.

    Raises:
        ConfigurationError: the protocol has no datatype for an input or output.

    >>> from coinfer.testing.models import tiny_linear
    >>> served("m", tiny_linear().model).metadata(["1"])["inputs"]
    [{'name': 'x', 'datatype': 'FP32', 'shape': [-1, 4]}]
    """
    for spec in (*model.inputs, *model.outputs):
        datatype_of(spec.dtype)
    has_batch = model.batch_symbol is not None and all(spec.shape for spec in model.outputs)
    how.setdefault("most_batch", MOST_BATCH if has_batch else 0)
    return ServedModel(
        name=name,
        engine_name=engine_name or name,
        inputs=model.inputs,
        outputs=model.outputs,
        optional=frozenset(model.defaults),
        **how,
    )


def _tensor_metadata(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": datatype_of(spec.dtype), "shape": _sizes(spec)}


def _tensor_config(spec: TensorSpec, skipped: int) -> dict[str, Any]:
    datatype = datatype_of(spec.dtype)
    kind = "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"
    return {"name": spec.name, "data_type": kind, "dims": _sizes(spec)[skipped:]}


def _sizes(spec: TensorSpec) -> list[int]:
    return [size if isinstance(size, int) else _ANY for size in spec.shape]
