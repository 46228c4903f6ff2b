"""Module layers: what of a torch module can be decomposed, and why the rest cannot.

The twin of `graph.compressing.layers` for modules. Changes nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from coinfer.errors import ConfigurationError, InputError
from coinfer.graph.compressing.factors import Array
from coinfer.graph.compressing.layer import Kind, Layer
from coinfer.retraining.library import torch

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

__all__ = ["ModuleLayers", "as_arguments", "canonical_weight", "evaluating", "macs_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleLayers:
    """The layers of a torch module that can be decomposed.

    Attributes:
        items: In the order of the module; their keys are the names of `named_modules`.
        left: Why others are not among them, by name.
        macs: Multiply-accumulate operations of the whole module, on the sample.
    """

    items: tuple[Layer, ...]
    left: Mapping[str, str]
    macs: int

    @classmethod
    def of(
        cls, module: Module, sample: Tensor | tuple[Tensor, ...], *, svd: bool = False
    ) -> ModuleLayers:
        """Find convolutions with kernels above 1x1, and on demand what is a matrix.

        Args:
            module: Any module; it is run once on the sample, without gradients.
            sample: What it takes, as one tensor or as all its positional arguments.
            svd: Find 1x1 convolutions and dense layers too.

        Raises:
            ConfigurationError: torch is not installed, or the module does not run on the sample.
        """
        places = _places(module, sample)
        uses = _uses(module)
        found, left = [], {}
        for name, each in module.named_modules():
            if not _is_candidate(each):
                continue
            why = _why_left(module, name, each, uses) or (
                "" if name in places else "it is not used on the sample"
            )
            layer = None if why else _layer(name, each, *places[name])
            if layer is None:
                left[name or "the module itself"] = why or _one_channel(each)
            elif layer.is_matrix and not svd:
                left[name] = f"{layer.kind.value}s are decomposed on demand only"
            else:
                found.append(layer)
        return cls(items=tuple(found), left=left, macs=macs_of(module, sample))

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


def canonical_weight(module: Module) -> Array:
    """Read the weight of a layer as (groups, outputs, inputs, *kernel), sizes of one group."""
    array: Array = np.asarray(module.weight.detach().cpu().double().numpy())
    groups = getattr(module, "groups", 1)
    return array.reshape(groups, len(array) // groups, *array.shape[1:])


def macs_of(module: Module, sample: Tensor | tuple[Tensor, ...]) -> int:
    """Count multiply-accumulate operations on a sample, by torch's own counter."""
    torch()
    from torch.utils.flop_counter import FlopCounterMode

    with evaluating(module), FlopCounterMode(display=False) as counter:
        module(*as_arguments(sample))
    return int(counter.get_total_flops()) // 2


def as_arguments(sample: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the positional arguments of a module.

    Raises:
        InputError: they are no tensors.
    """
    found = tuple(sample) if isinstance(sample, tuple | list) else (sample,)
    for each in found:
        if not isinstance(each, torch().Tensor):
            raise InputError(
                f"inputs must be a tensor or a tuple of tensors, the module's positional "
                f"arguments, got {type(each).__name__}; wrap the data so that it gives "
                "(inputs, target)"
            )
    return found


@contextmanager
def evaluating(module: Module) -> Iterator[None]:
    """Evaluate a module without gradients; each part is in its own mode again afterwards."""
    modes = [(each, each.training) for each in module.modules()]
    module.eval()
    try:
        with torch().no_grad():
            yield
    finally:
        for each, mode in modes:
            each.training = mode


def _is_candidate(module: Module) -> bool:
    nn = torch().nn
    convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    return isinstance(module, (*convolutions, nn.modules.conv._ConvTransposeNd))


def _why_left(root: Module, name: str, module: Module, uses: Counter[int]) -> str:
    nn = torch().nn
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        return "it is a transposed convolution"
    if type(module) not in (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear):
        return f"it is of a class of its own, {type(module).__name__}"
    if not name:
        return "it has nothing around it in which it could be replaced"
    # Its fast path reads the weights of its dense layers without calling them.
    if isinstance(root.get_submodule(name.rpartition(".")[0]), nn.TransformerEncoderLayer):
        return "torch reads its weight without calling it"
    if nn.utils.parametrize.is_parametrized(module):
        return "its weight is computed"
    if module._forward_hooks or module._forward_pre_hooks:
        return "it has hooks"
    if not module.weight.is_floating_point():
        return "its weight is not of floating point"
    return "its weight is shared with another layer" if uses[id(module.weight)] > 1 else ""


def _uses(module: Module) -> Counter[int]:
    """Count the modules that have a parameter as their own, by its identity."""
    return Counter(
        id(parameter)
        for each in module.modules()
        for parameter in each._parameters.values()
        if parameter is not None
    )


def _places(module: Module, sample: Tensor | tuple[Tensor, ...]) -> dict[str, tuple[int, int]]:
    """Return the positions that layers read and write on a sample, over all their calls."""
    found: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    handles = []
    for name, each in module.named_modules():
        if not _is_candidate(each):
            continue

        def seen(layer: Any, inputs: Any, output: Any, name: str = name) -> None:
            outputs, channels = _channels(layer)
            found[name][0] += prod(inputs[0].shape) // channels
            found[name][1] += prod(output.shape) // outputs

        # Of what has a hook already that one stays, so it is not taken for ours.
        handles.append(each.register_forward_hook(seen))
    try:
        with evaluating(module):
            module(*as_arguments(sample))
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise ConfigurationError(
            f"{type(module).__name__} does not run on the sample: {error}; give a tensor of the "
            "sizes that it takes, or a tuple of all its arguments"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return {name: (inputs, outputs) for name, (inputs, outputs) in found.items()}


def _channels(module: Module) -> tuple[int, int]:
    """Return the channels that a layer writes and reads."""
    if isinstance(module, torch().nn.Linear):
        return module.out_features, module.in_features
    return module.out_channels, module.in_channels


def _one_channel(module: Module) -> str:
    is_dense = isinstance(module, torch().nn.Linear)
    return "it has one channel" if is_dense else "it has one channel per group"


def _layer(name: str, module: Module, in_places: int, out_places: int) -> Layer | None:
    outputs, inputs = _channels(module)
    groups, kernel = getattr(module, "groups", 1), tuple(getattr(module, "kernel_size", ()))
    kind = Kind.DENSE if not kernel else Kind.CONVOLUTION if prod(kernel) > 1 else Kind.POINTWISE
    if outputs == groups or inputs == groups:
        return None
    return Layer(
        key=name,
        name=name,
        kind=kind,
        groups=groups,
        inputs=inputs // groups,
        outputs=outputs // groups,
        kernel=kernel,
        in_places=in_places,
        out_places=out_places,
    )
