"""Decomposition: put small layers in the place of a torch module's, in place.

The factors are those of `graph.compressing.factors`, as for ONNX files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coinfer.errors import ConfigurationError
from coinfer.graph.compressing.factors import (
    Array,
    Factors,
    convolution_parts,
    plain_factors,
    relative_gap,
)
from coinfer.graph.compressing.layer import WAS, Layer, Ranks, check_ranks
from coinfer.graph.compressing.rank_rule import RankRule
from coinfer.graph.compressing.spectrum import Spectrum
from coinfer.retraining.library import torch
from coinfer.retraining.measured_ranks import measured_ranks
from coinfer.retraining.module_layers import ModuleLayers, canonical_weight, macs_of

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

__all__ = ["DecomposedLayer", "Decomposition", "choose_ranks", "decompose"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecomposedLayer:
    """What became of a layer.

    Attributes:
        layer: Its sizes and costs as it was.
        ranks: What it was given.
        weight_error: ||W~ - W|| / ||W||.
    """

    layer: Layer
    ranks: Ranks
    weight_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Decomposition:
    """What became of a module.

    Attributes:
        layers: Those that have parts now, in the order of the module.
        left: Why other convolutions and dense layers have none, by name.
        macs: Multiply-accumulate operations on the sample, before and after.
        parameters: Trainable elements before and after.
    """

    layers: tuple[DecomposedLayer, ...]
    left: Mapping[str, str]
    macs: tuple[int, int]
    parameters: tuple[int, int]

    @property
    def macs_removed(self) -> float:
        """Share of the operations that is gone."""
        before, after = self.macs
        return 1 - after / before if before else 0.0


def choose_ranks(layers: ModuleLayers, module: Module, rule: str | RankRule) -> dict[str, Ranks]:
    """Choose ranks by weights alone; what is left as it is, is not in the result.

    Args:
        layers: Of the module.
        module: The module; it is not changed.
        rule: `ratio:R`, `energy:E`, `evbmf` or `macs:F`, see `coinfer.compress`.

    Raises:
        ConfigurationError: the rule is none of these, or cannot be kept.
    """
    parsed = RankRule.parse(rule) if isinstance(rule, str) else rule
    if parsed.is_measured:
        raise ConfigurationError(
            "weights alone do not tell ranks by latency: call decompose with a sample, or give "
            "ratio:R, energy:E, evbmf or macs:F"
        )
    spectra = {}
    if parsed.needs_weights:
        parts = {each.key: module.get_submodule(each.key) for each in layers}
        spectra = {key: Spectrum.of(canonical_weight(part)) for key, part in parts.items()}
    of_layers = sum(layer.macs() or 0 for layer in layers)
    return parsed.ranks(layers, spectra, layers.macs - of_layers)


def decompose(
    module: Module,
    sample: Tensor | tuple[Tensor, ...],
    *,
    ranks: str | RankRule | Mapping[str, Ranks],
    svd: bool = False,
    max_error: float | None = None,
) -> Decomposition:
    """Replace layers of a module by smaller ones, in place.

    A convolution becomes a `Sequential` of three (Tucker-2: Kim et al., ICLR 2016, arXiv
    1511.06530), with `svd` a 1x1 convolution or a dense layer becomes two. Parameters of the new
    layers are where those of the old ones were, in the same type, and need gradients if they did.

    Args:
        module: It is changed; keep a `copy.deepcopy` of it as the teacher.
        sample: What it takes, as one tensor or as all its positional arguments: operations are
            counted on it. By `latency` its first axis counts samples, at least 2.
        ranks: A rule, see `choose_ranks`; `latency`: by the measured times of what the module
            exports to, as of `coinfer.compress`; or ranks by the names of `named_modules`.
        svd: Decompose 1x1 convolutions and dense layers too.
        max_error: By `latency` only: the most that outputs may be off before retraining, ||out -
            ref|| / ||ref||; None: 0.02; `math.inf`: time alone decides.

    Raises:
        ConfigurationError: there is nothing to decompose, a layer cannot have its ranks, the rule
            cannot be kept, or torch or `tensorly` is not installed (by `latency` also onnxscript).
            The module is as it was.
        InputError: by `latency`, there is one sample only.
        ModelError: by `latency`, the module cannot be exported.

    >>> import torch
    >>> module = torch.nn.Sequential(torch.nn.Conv2d(8, 16, 3), torch.nn.ReLU())
    >>> found = decompose(module, torch.zeros(1, 8, 6, 6), ranks="ratio:0.5")
    >>> [tuple(part.weight.shape) for part in module[0]], found.macs
    ([(4, 8, 1, 1), (8, 4, 3, 3), (16, 8, 1, 1)], (18432, 7808))
    """
    layers = ModuleLayers.of(module, sample, svd=svd)
    if not layers.items:
        raise ConfigurationError(_nothing(module, layers))
    choice = _choice(layers, module, sample, ranks, svd=svd, max_error=max_error)
    factors = _factors(layers, module, choice)
    parameters = _trainable(module)
    found = []
    for layer in layers:
        if layer.key not in choice:
            continue
        weight = canonical_weight(module.get_submodule(layer.key))
        error = relative_gap(weight, factors[layer.key].weight)
        found.append(DecomposedLayer(layer=layer, ranks=choice[layer.key], weight_error=error))
    return Decomposition(
        layers=tuple(found),
        left=layers.left,
        macs=(layers.macs, _replaced_all(module, factors, sample)),
        parameters=(parameters, _trainable(module)),
    )


def _choice(
    layers: ModuleLayers,
    module: Module,
    sample: Tensor | tuple[Tensor, ...],
    ranks: str | RankRule | Mapping[str, Ranks],
    *,
    svd: bool,
    max_error: float | None,
) -> Mapping[str, Ranks]:
    rule = RankRule.parse(ranks) if isinstance(ranks, str) else ranks
    is_measured = isinstance(rule, RankRule) and rule.is_measured
    if max_error is not None and not is_measured:
        raise ConfigurationError("max_error is for ranks by latency only; other rules measure none")
    if isinstance(rule, Mapping):
        choice = {key: each for key, each in rule.items() if each != WAS}
    elif is_measured:
        choice = measured_ranks(layers, module, sample, max_error=max_error, svd=svd)
    else:
        choice = choose_ranks(layers, module, rule)
    if not choice:
        hint = "none is faster decomposed here" if is_measured else "give a smaller share"
        raise ConfigurationError(
            f"{type(module).__name__}: {ranks} leaves every layer as it is; {hint}"
        )
    return choice


def _factors(
    layers: ModuleLayers, module: Module, choice: Mapping[str, Ranks]
) -> dict[str, Factors]:
    known = {layer.key: layer for layer in layers}
    for key, ranks in choice.items():
        if key not in known:
            why = layers.left.get(key, "there is no such layer")
            raise ConfigurationError(f"layer {key!r} cannot be decomposed: {why}")
        check_ranks(known[key], ranks)
    return {
        key: plain_factors(canonical_weight(module.get_submodule(key)), ranks)
        for key, ranks in choice.items()
    }


def _replaced_all(
    module: Module, factors: Mapping[str, Factors], sample: Tensor | tuple[Tensor, ...]
) -> int:
    """Replace layers and return the operations; if the module then fails, it gets them back."""
    old = {key: module.get_submodule(key) for key in factors}
    new = {key: _parts(old[key], parts) for key, parts in factors.items()}
    for key, part in new.items():
        _replace(module, old[key], part)
    try:
        return macs_of(module, sample)
    except AttributeError as error:
        for key, part in new.items():
            _replace(module, part, old[key])
        raise ConfigurationError(
            f"{type(module).__name__} reads the weight of a layer without calling it ({error}); "
            "give ranks of other layers by name"
        ) from error


def _replace(root: Module, old: Module, new: Module) -> None:
    """Put a module where another one was, wherever that is reached from."""
    for owner in list(root.modules()):
        for name, child in list(owner._modules.items()):
            if child is old:
                setattr(owner, name, new)


def _parts(old: Module, factors: Factors) -> Module:
    is_dense = isinstance(old, torch().nn.Linear)
    new = _dense_parts(old, factors) if is_dense else _convolutions(old, factors)
    return new.train(old.training)


def _convolutions(old: Module, factors: Factors) -> Module:
    parts = convolution_parts(factors)
    placed = {
        name: getattr(old, name) for name in ("stride", "padding", "dilation", "padding_mode")
    }
    made = []
    for part in parts:
        layer = type(old)(
            part.weight.shape[1] * old.groups,
            len(part.weight),
            part.weight.shape[2:],
            groups=old.groups,
            bias=part is parts[-1] and old.bias is not None,
            device="meta",
            **(placed if part.is_placed else {}),
        )
        made.append(_filled(layer, part.weight, old))
    return _sequence([part.name for part in parts], made, old)


def _dense_parts(old: Module, factors: Factors) -> Module:
    assert factors.inputs is not None
    first, core = factors.inputs[0].T, factors.core[0]
    linear = torch().nn.Linear
    made = [
        _filled(linear(*weight.shape[::-1], bias=has_bias, device="meta"), weight, old)
        for weight, has_bias in ((first, False), (core, old.bias is not None))
    ]
    return _sequence(["first", "core"], made, old)


def _sequence(names: list[str], made: list[Any], old: Module) -> Module:
    if old.bias is not None:
        made[-1].bias = old.bias  # the same parameter
    found = torch().nn.Sequential()
    for name, layer in zip(names, made, strict=True):
        found.add_module(name, layer)
    return found


def _filled(layer: Module, weight: Array, old: Module) -> Module:
    was = old.weight
    tensor = torch().tensor(weight, dtype=was.dtype, device=was.device)
    layer.weight = torch().nn.Parameter(tensor, requires_grad=was.requires_grad)
    return layer


def _trainable(module: Module) -> int:
    return sum(each.numel() for each in module.parameters() if each.requires_grad)


def _nothing(module: Module, layers: ModuleLayers) -> str:
    why = "; ".join(dict.fromkeys(layers.left.values())) or (
        "it has no convolutions with kernels above 1x1"
    )
    hint = "; try svd=True" if any("on demand" in reason for reason in layers.left.values()) else ""
    return f"{type(module).__name__} has nothing to decompose: {why}{hint}"
