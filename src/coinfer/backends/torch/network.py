"""Network: a program as a torch module, with convolutions and dense layers as layers of torch.

So it can be trained, and its layers can be replaced. What else is constant stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from coinfer.backends.torch.library import torch
from coinfer.backends.torch.program import Program
from coinfer.backends.torch.translation import Translated
from coinfer.model import Model

__all__ = ["Network"]

_CONVOLUTIONS = {3: torch.nn.Conv1d, 4: torch.nn.Conv2d, 5: torch.nn.Conv3d}
_NORMS = {
    2: torch.nn.BatchNorm1d,
    3: torch.nn.BatchNorm1d,
    4: torch.nn.BatchNorm2d,
    5: torch.nn.BatchNorm3d,
}


class Network(torch.nn.Module):  # type: ignore[misc]  # torch is not looked into
    """A model as a torch module: its arguments are the model's inputs, in order.

    It stays on the device that it was made for.

    Args:
        model: The model.
        device: A `torch.device`.
        what: What errors call it.

    Raises:
        BackendError: torch has no function for an operator.
    """

    def __init__(self, model: Model, device: Any, what: str) -> None:
        super().__init__()
        self._device = device
        self.program = Program.of(
            model, compute=torch.float32, device=device, what=what, layer_of=self._layer_of
        )
        self.layer_names = tuple(name for name, _ in self.named_children())
        self.eval()

    def forward(self, *inputs: Any) -> Any:
        """Compute the outputs: a tensor, or a tuple of several."""
        layers = {name: getattr(self, name) for name in self.layer_names}
        made = self.program.run(inputs, layers)
        return made[0] if len(made) == 1 else tuple(made)

    def _layer_of(self, each: Translated, constants: Sequence[Any]) -> str:
        make = _LAYERS.get(each.node.op_type)
        layer = None if make is None else make(each, constants)
        if layer is None:
            return ""
        name = re.sub(r"\W", "_", each.writes[0] or "layer")
        while hasattr(self, name):
            name += "_"
        self.add_module(name, layer.to(self._device))
        return name


def _convolution(each: Translated, constants: Sequence[Any]) -> Any | None:
    weight, bias = constants[1], constants[2] if len(constants) > 2 else None
    node = each.node
    if weight is None or (node.has(2) and bias is None) or weight.dim() not in _CONVOLUTIONS:
        return None
    axes = weight.dim() - 2
    pads = node.get("pads", (0,) * (2 * axes))
    if node.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or pads[:axes] != pads[axes:]:
        return None
    group = node.get("group", 1)
    layer = _CONVOLUTIONS[weight.dim()](
        weight.shape[1] * group,
        weight.shape[0],
        tuple(weight.shape[2:]),
        stride=node.get("strides", (1,) * axes),
        padding=(0,) * axes if node.get("auto_pad") == "VALID" else pads[:axes],
        dilation=node.get("dilations", (1,) * axes),
        groups=group,
        bias=bias is not None,
        device="meta",
    )
    return _filled(layer, weight=weight, bias=bias)


def _dense(each: Translated, constants: Sequence[Any]) -> Any | None:
    node, weight = each.node, constants[1]
    bias = constants[2] if len(constants) > 2 else None
    if weight is None or weight.dim() != 2 or (node.has(2) and bias is None):
        return None
    if node.get("alpha", 1.0) != 1.0 or node.get("beta", 1.0) != 1.0 or node.get("transA", 0):
        return None
    weight = weight if node.get("transB", 0) else weight.transpose(0, 1)
    if bias is not None and bias.shape != weight.shape[:1]:
        return None
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    return _filled(layer, weight=weight, bias=bias)


def _norm(each: Translated, constants: Sequence[Any]) -> Any | None:
    make = _NORMS.get(each.node.rank() or 0)
    if make is None or any(constant is None for constant in constants[1:]):
        return None
    scale, bias, mean, variance = constants[1:]
    node = each.node
    layer = make(len(scale), eps=node.get("epsilon", 1e-5), momentum=1 - node.get("momentum", 0.9))
    layer.running_mean, layer.running_var = mean.clone(), variance.clone()
    return _filled(layer, weight=scale, bias=bias)


def _filled(layer: Any, **tensors: Any) -> Any:
    for name, tensor in tensors.items():
        if tensor is not None:
            copy = tensor.clone(memory_format=torch.contiguous_format)
            setattr(layer, name, torch.nn.Parameter(copy))
    return layer


_LAYERS: Mapping[str, Callable[[Translated, Sequence[Any]], Any | None]] = {
    "BatchNormalization": _norm,
    "Conv": _convolution,
    "Gemm": _dense,
    "MatMul": _dense,
}
