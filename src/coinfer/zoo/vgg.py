"""VGG (Simonyan and Zisserman 2015), configurations D and E, as in torchvision's `vgg.py`.

Without batch norm. Dropout is left out: at inference it does nothing.
Knows nothing of the zoo's table.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from coinfer.zoo.builder import NetworkBuilder

__all__ = ["vgg16", "vgg19"]


def _vgg(net: NetworkBuilder, x: ir.Value, depths: Sequence[int]) -> None:
    """Five stages of so many 3x3 convolutions, each ending with a 2x2 pool; three dense layers."""
    y, index = x, 0
    for stage, depth in enumerate(depths):
        for _ in range(depth):
            channels = min(64 * 2**stage, 512)
            y = net.conv(y, channels, kernel=3, bias=True, name=f"features.{index}")
            y = net.relu(y, name=f"features.{index + 1}")
            index += 2
        y = net.max_pool(y, kernel=2, stride=2, name=f"features.{index}")
        index += 1
    # At 224 pixels the reference's adaptive pool to 7x7 is the identity.
    y = net.flatten(y, name="flatten")
    y = net.relu(net.gemm(y, 4096, name="classifier.0"), name="classifier.1")
    y = net.relu(net.gemm(y, 4096, name="classifier.3"), name="classifier.4")
    net.output(net.gemm(y, 1000, name="classifier.6"), "logits")


def vgg16(net: NetworkBuilder, x: ir.Value) -> None:
    """VGG of 16 layers on `(batch, 3, 224, 224)`."""
    _vgg(net, x, (2, 2, 3, 3, 3))


def vgg19(net: NetworkBuilder, x: ir.Value) -> None:
    """VGG of 19 layers on `(batch, 3, 224, 224)`."""
    _vgg(net, x, (2, 2, 4, 4, 4))
