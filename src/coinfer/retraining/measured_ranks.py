"""Measured ranks: those of a torch module by latency, found on the model that it exports to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coinfer.errors import ConfigurationError
from coinfer.graph.compressing.layer import Ranks
from coinfer.graph.compressing.rank_rule import LATENCY, RankRule
from coinfer.graph.operators import nodes_by_key
from coinfer.planner.compressing.setting import CompressionSetting
from coinfer.planner.compressing.wish import CompressionWish
from coinfer.retraining.exporting import exported
from coinfer.retraining.module_layers import ModuleLayers, as_arguments

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

__all__ = ["measured_ranks"]


def measured_ranks(
    layers: ModuleLayers,
    module: Module,
    sample: Tensor | tuple[Tensor, ...],
    *,
    max_error: float | None,
    svd: bool,
) -> dict[str, Ranks]:
    """Choose ranks by measured time; what is left as it is, is not in the result.

    Args:
        layers: Of the module.
        module: The module; it is not changed.
        sample: What it takes: the first axis counts the samples, of which there must be two.
        max_error: The most that outputs may be off, as of `coinfer.compress`.
        svd: Whether 1x1 convolutions and dense layers may be decomposed.

    Raises:
        ConfigurationError: the error cannot be kept, or a layer of the export is none of the
            module's.
        InputError: there is one sample only.
        ModelError: the module cannot be exported.
    """
    arguments = as_arguments(sample)
    model = exported(module, arguments, name=type(module).__name__)
    names = [each.name for each in model.inputs]
    feeds = [
        {name: each[at : at + 1].cpu().numpy() for name, each in zip(names, arguments, strict=True)}
        for at in range(min(len(each) for each in arguments))
    ]
    wish = CompressionWish(rule=RankRule(LATENCY), max_error=max_error, svd=svd)
    # Factors of modules come from weights alone.
    made = CompressionSetting.of(model, feeds, None, {}, {}, 0).compression(wish, False).done()
    nodes, known = nodes_by_key(model.graph), {layer.key for layer in layers}
    found = {}
    for each in made.report.decomposed:
        weight = nodes[each.layer.key].inputs[1]
        name = "" if weight is None else str(weight.name).removesuffix(".weight")
        if name not in known:
            raise ConfigurationError(
                f"{type(module).__name__}: layer {each.layer.name!r} of the exported model is no "
                "layer of the module; compress the exported model, or give ranks by name"
            )
        found[name] = each.ranks
    return found
