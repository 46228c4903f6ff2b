"""Fusing for users: load what is named and fuse it into one model."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from coinfer.graph.fusing.costs import Costs
from coinfer.graph.fusing.fused_model import FusedModel, fuse_models
from coinfer.model import Model
from coinfer.planner.model_source import resolve_model

__all__ = ["fuse"]


def fuse(
    models: Sequence[Model | str | Path],
    *,
    name: str = "fused",
    same_inputs: Collection[str] = (),
    costs: Costs | None = None,
) -> FusedModel:
    """Fuse models of one architecture, with weights and inputs of their own, into one model.

    Each operator is replaced by a more general one that does the work of all: a convolution by one
    with as many groups more, a product by a batched one, and so on (NetFuse: Jeong, Kim, Yu, Lee
    and Chun, arXiv 2009.13062, 2020). What has no rule runs once per model inside of the graph.
    Weights that are bit-identical in all models are kept once. Outputs are those of the separate
    models but for the rounding of sums, and no output of a model depends on another model's input.

    Operators that not all models have, such as heads of different sizes, run apart, as long as at
    least half of the operators of each model correspond.

    Args:
        models: What `load_model` returns, paths, or `zoo:NAME`. Each is known by its name; equal
            names get a number.
        name: Of the fused model.
        same_inputs: Inputs, as the first model calls them, that all get the same value in every
            run: there is one of each then, without a prefix, and what all would compute of it with
            equal weights is computed once.
        costs: What operators cost in each layout, and changes between them; modelled by default.

    Returns:
        The fused model. Its inputs are those of the first model, named `MODEL/INPUT`, then those of
        the second, and so on; so are its outputs. Open sizes must be equal in a run.

    Raises:
        ModelError: a file cannot be used, or the models have different inputs or architectures:
            names the first operator that differs, and why.
        ConfigurationError: no model, or no input is called as in `same_inputs`.

    Example:
        >>> import coinfer
        >>> fused = coinfer.fuse(["zoo:tiny_mlp", "zoo:tiny_mlp?seed=1"])
        >>> [spec.name for spec in fused.model.inputs]
        ['tiny_mlp/x', 'tiny_mlp-2/x']
    """
    loaded = [each if isinstance(each, Model) else resolve_model(str(each)) for each in models]
    return fuse_models(loaded, name=name, same_inputs=same_inputs, costs=costs)
