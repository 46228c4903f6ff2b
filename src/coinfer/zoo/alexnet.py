"""AlexNet in its one-column form (Krizhevsky 2014), as in torchvision's `alexnet.py`.

Knows nothing of the zoo's table.
"""

from __future__ import annotations

import onnx_ir as ir

from coinfer.zoo.builder import NetworkBuilder

__all__ = ["alexnet"]


def alexnet(net: NetworkBuilder, x: ir.Value) -> None:
    """AlexNet on `(batch, 3, 224, 224)`."""
    y = net.conv(x, 64, kernel=11, stride=4, padding=2, bias=True, name="features.0")
    y = net.relu(y, name="features.1")
    y = net.max_pool(y, kernel=3, stride=2, name="features.2")
    y = net.relu(net.conv(y, 192, kernel=5, bias=True, name="features.3"), name="features.4")
    y = net.max_pool(y, kernel=3, stride=2, name="features.5")
    for index, channels in ((6, 384), (8, 256), (10, 256)):
        y = net.conv(y, channels, kernel=3, bias=True, name=f"features.{index}")
        y = net.relu(y, name=f"features.{index + 1}")
    y = net.max_pool(y, kernel=3, stride=2, name="features.12")
    # At 224 pixels the reference's adaptive pool to 6x6 is the identity.
    y = net.flatten(y, name="flatten")
    y = net.relu(net.gemm(y, 4096, name="classifier.1"), name="classifier.2")
    y = net.relu(net.gemm(y, 4096, name="classifier.4"), name="classifier.5")
    net.output(net.gemm(y, 1000, name="classifier.6"), "logits")
