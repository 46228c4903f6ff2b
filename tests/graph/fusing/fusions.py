"""Fuses models and runs them with onnxruntime beside the separate ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from coinfer import zoo
from coinfer.graph.fusing.costs import Costs
from coinfer.graph.fusing.fused_model import FusedModel, fuse_models
from coinfer.graph.fusing.layout import Layout
from coinfer.model import Model, model_from_ir
from coinfer.testing.models import model_from_text
from conformance.fused import Preferring
from graph.chains import run

Arrays = Mapping[str, np.ndarray[Any, Any]]

WAYS: Mapping[str, Costs | None] = {
    "chosen": None,
    "packed": Preferring(Layout.PACKED),
    "stacked": Preferring(Layout.STACKED),
}
"""What is chosen, and everything merged with one layout where it can be."""

TOLERANCE = 1e-5
"""Relative, in fp32: a merged sum is rounded at other places."""


def zoo_models(name: str, count: int) -> list[Model]:
    return [model_from_ir(zoo.build(name, seed=seed), name=f"m{seed}") for seed in range(count)]


def copies(text: str, count: int, *, seed: int = 0) -> list[Model]:
    """Models of one text whose weights differ: floats get noise, but scalars."""
    return [perturbed(model_from_text(text, name=f"m{at}"), seed + at) for at in range(count)]


def perturbed(model: Model, seed: int, *, scale: float = 0.3, least: int = 2) -> Model:
    """The same architecture with other weights.

    Args:
        model: Its weights are kept.
        seed: What the noise is drawn from; 0 adds none.
        scale: Of the noise, relative.
        least: Smaller tensors stay, because they may be settings.
    """
    if not seed:
        return model
    rng = np.random.default_rng(seed)
    clone = model.graph.clone()

    def noisy(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        array = tensor.numpy()
        if array.dtype.kind != "f" or array.size < least:
            return tensor
        noise = 1 + scale * rng.standard_normal(array.shape)
        return ir.tensor((array * noise).astype(array.dtype), name=tensor.name)

    for value in clone.graph.initializers.values():
        read_by = {use.node.op_type for use in value.uses()}
        if value.const_value is not None and read_by.isdisjoint(("Resize", "Upsample")):
            value.const_value = noisy(value.const_value)
    for node in clone.graph:
        if node.op_type == "Constant" and "value" in node.attributes:
            tensor = node.attributes["value"].as_tensor()
            node.attributes["value"] = ir.AttrTensor("value", noisy(tensor))
    return model_from_ir(clone, name=model.name)


def feeds_of(models: Sequence[Model], *, batch: int = 1, seed: int = 1) -> list[Arrays]:
    return [model.sample_inputs(batch=batch, seed=seed + at) for at, model in enumerate(models)]


def run_fused(fused: FusedModel, feeds: Sequence[Arrays]) -> list[dict[str, np.ndarray[Any, Any]]]:
    inputs = fused.inputs_of(feeds)
    fused.model.check_inputs(inputs)
    return fused.outputs_of(run(fused.model, inputs))


def assert_equal(got: Arrays, wanted: Arrays, *, tolerance: float = TOLERANCE) -> None:
    assert got.keys() == wanted.keys()
    for name, array in wanted.items():
        assert got[name].shape == array.shape, name
        assert got[name].dtype == array.dtype, name
        if array.dtype.kind != "f":
            np.testing.assert_array_equal(got[name], array)
            continue
        norm = float(np.linalg.norm(array.astype(np.float64)))
        gap = float(np.linalg.norm(got[name].astype(np.float64) - array.astype(np.float64)))
        assert gap <= tolerance * norm, f"{name}: {gap / norm:.2g}"
        assert norm > 0, f"{name} is zero, which proves nothing"


def assert_same_as_apart(
    models: Sequence[Model],
    *,
    batch: int = 1,
    costs: Costs | None = None,
    feeds: Sequence[Arrays] | None = None,
    tolerance: float = TOLERANCE,
) -> FusedModel:
    """Fuse models, run both and compare; return the fused one."""
    fused = fuse_models(models, costs=costs)
    feeds = feeds_of(models, batch=batch) if feeds is None else feeds
    for model, feed, got in zip(models, feeds, run_fused(fused, feeds), strict=True):
        assert_equal(got, run(model, feed), tolerance=tolerance)
    return fused
