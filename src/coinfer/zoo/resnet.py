"""ResNet and ResNeXt (He et al. 2016; Xie et al. 2017), as in torchvision's `resnet.py`.

The stride of a bottleneck sits on its 3x3 convolution ("v1.5"). Knows nothing of the zoo's table.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from coinfer.zoo.builder import NetworkBuilder

__all__ = ["resnet50", "resnet101", "resnet152", "resnext50", "small_resnet"]

_BRANCH_GAIN = 0.1
"""Scale of a residual branch against unit variance.

Random filters amplify a rounding error from block to block, trained ones do not. With branches as
small as this, 101 layers in bf16 have an output error of a few per cent; with 0.5 it was 50 %.
"""


def _shortcut(net: NetworkBuilder, x: ir.Value, channels: int, stride: int) -> ir.Value:
    if stride == 1 and net.shape(x)[0] == channels:
        return x
    projected = net.conv(x, channels, stride=stride, name="downsample.0")
    return net.batch_norm(projected, name="downsample.1")


def _bottleneck(
    net: NetworkBuilder, x: ir.Value, planes: int, stride: int, groups: int, base_width: int
) -> ir.Value:
    """1x1 to reduce, 3x3 (grouped in ResNeXt), 1x1 to four times `planes`."""
    width = planes * base_width // 64 * groups
    y = net.conv(x, width, name="conv1")
    y = net.relu(net.batch_norm(y, name="bn1"), name="relu1")
    y = net.conv(y, width, kernel=3, stride=stride, groups=groups, name="conv2")
    y = net.relu(net.batch_norm(y, name="bn2"), name="relu2")
    y = net.conv(y, planes * 4, name="conv3")
    y = net.batch_norm(y, gain=_BRANCH_GAIN, name="bn3")
    return net.relu(net.add(y, _shortcut(net, x, planes * 4, stride), name="add"), name="relu3")


def _basic_block(net: NetworkBuilder, x: ir.Value, planes: int, stride: int) -> ir.Value:
    """Two 3x3 convolutions."""
    y = net.conv(x, planes, kernel=3, stride=stride, name="conv1")
    y = net.relu(net.batch_norm(y, name="bn1"), name="relu1")
    y = net.conv(y, planes, kernel=3, name="conv2")
    y = net.batch_norm(y, gain=_BRANCH_GAIN, name="bn2")
    return net.relu(net.add(y, _shortcut(net, x, planes, stride), name="add"), name="relu2")


def _imagenet_resnet(
    net: NetworkBuilder, x: ir.Value, depths: Sequence[int], groups: int = 1, base_width: int = 64
) -> None:
    y = net.conv(x, 64, kernel=7, stride=2, name="conv1")
    y = net.relu(net.batch_norm(y, name="bn1"), name="relu")
    y = net.max_pool(y, kernel=3, stride=2, padding=1, name="maxpool")
    for stage, depth in enumerate(depths):
        for block in range(depth):
            stride = 2 if stage > 0 and block == 0 else 1
            with net.scope(f"layer{stage + 1}.{block}"):
                y = _bottleneck(net, y, 64 * 2**stage, stride, groups, base_width)
    net.classifier(y, 1000, name="fc")


def resnet50(net: NetworkBuilder, x: ir.Value) -> None:
    """ResNet of 50 layers on `(batch, 3, 224, 224)`."""
    _imagenet_resnet(net, x, (3, 4, 6, 3))


def resnet101(net: NetworkBuilder, x: ir.Value) -> None:
    """ResNet of 101 layers on `(batch, 3, 224, 224)`."""
    _imagenet_resnet(net, x, (3, 4, 23, 3))


def resnet152(net: NetworkBuilder, x: ir.Value) -> None:
    """ResNet of 152 layers on `(batch, 3, 224, 224)`."""
    _imagenet_resnet(net, x, (3, 8, 36, 3))


def resnext50(net: NetworkBuilder, x: ir.Value) -> None:
    """ResNeXt of 50 layers, 32 groups of width 4, on `(batch, 3, 224, 224)`."""
    _imagenet_resnet(net, x, (3, 4, 6, 3), groups=32, base_width=4)


def small_resnet(net: NetworkBuilder, x: ir.Value) -> None:
    """ResNet of 20 layers for `(batch, 3, 32, 32)`, with projections where the width changes."""
    y = net.conv(x, 16, kernel=3, name="conv1")
    y = net.relu(net.batch_norm(y, name="bn1"), name="relu")
    for stage in range(3):
        for block in range(3):
            with net.scope(f"layer{stage + 1}.{block}"):
                stride = 2 if stage > 0 and block == 0 else 1
                y = _basic_block(net, y, 16 * 2**stage, stride)
    net.classifier(y, 10, name="fc")
