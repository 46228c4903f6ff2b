"""SqueezeNet 1.1 (Iandola et al. 2016), as in torchvision's `squeezenet.py`.

Knows nothing of the zoo's table.
"""

from __future__ import annotations

import onnx_ir as ir

from coinfer.zoo.builder import NetworkBuilder

__all__ = ["squeezenet1_1"]

_FIRES = {3: (16, 64), 4: (16, 64), 6: (32, 128), 7: (32, 128),
          9: (48, 192), 10: (48, 192), 11: (64, 256), 12: (64, 256)}  # fmt: skip
"""Squeezed channels and channels per expansion of the fire module at each index."""


def _fire(net: NetworkBuilder, x: ir.Value, squeezed: int, expanded: int) -> ir.Value:
    """Narrow by 1x1, then widen by 1x1 and by 3x3 side by side."""
    y = net.conv(x, squeezed, bias=True, name="squeeze")
    y = net.relu(y, name="squeeze_activation")
    pointwise = net.conv(y, expanded, bias=True, name="expand1x1")
    spatial = net.conv(y, expanded, kernel=3, bias=True, name="expand3x3")
    branches = [
        net.relu(pointwise, name="expand1x1_activation"),
        net.relu(spatial, name="expand3x3_activation"),
    ]
    return net.concat(branches, name="concat")


def squeezenet1_1(net: NetworkBuilder, x: ir.Value) -> None:
    """SqueezeNet 1.1 on `(batch, 3, 224, 224)`."""
    y = net.conv(x, 64, kernel=3, stride=2, padding=0, bias=True, name="features.0")
    y = net.relu(y, name="features.1")
    for index in range(2, 13):
        if index in _FIRES:
            with net.scope(f"features.{index}"):
                y = _fire(net, y, *_FIRES[index])
        else:
            y = net.max_pool(y, kernel=3, stride=2, ceil=True, name=f"features.{index}")
    y = net.relu(net.conv(y, 1000, bias=True, name="classifier.1"), name="classifier.2")
    y = net.global_average_pool(y, name="classifier.3")
    net.output(net.flatten(y, name="flatten"), "logits")
