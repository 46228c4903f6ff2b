"""MobileNetV2 (Sandler et al. 2018), as in torchvision's `mobilenetv2.py`, width 1.0.

Knows nothing of the zoo's table.
"""

from __future__ import annotations

import onnx_ir as ir

from coinfer.zoo.builder import NetworkBuilder

__all__ = ["mobilenet_v2"]

_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, channels, blocks and first stride of each stage: table 2 of the paper."""

_BRANCH_GAIN = 0.1
"""Scale of a residual branch against unit variance, for the reason given in `resnet.py`."""


def _conv_bn_relu6(
    net: NetworkBuilder,
    x: ir.Value,
    channels: int,
    *,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    name: str,
) -> ir.Value:
    with net.scope(name):
        y = net.conv(x, channels, kernel=kernel, stride=stride, groups=groups, name="0")
        return net.relu6(net.batch_norm(y, name="1"), name="2")


def _inverted_residual(
    net: NetworkBuilder, x: ir.Value, expansion: int, channels: int, stride: int
) -> ir.Value:
    """Widen by 1x1, filter depthwise, narrow by 1x1 without activation."""
    in_channels = net.shape(x)[0]
    hidden = in_channels * expansion
    y = x
    if expansion != 1:
        y = _conv_bn_relu6(net, y, hidden, name="expand")
    y = _conv_bn_relu6(net, y, hidden, kernel=3, stride=stride, groups=hidden, name="depthwise")
    is_residual = stride == 1 and in_channels == channels
    gain = _BRANCH_GAIN if is_residual else 1.0
    y = net.batch_norm(net.conv(y, channels, name="project"), gain=gain, name="project_bn")
    return net.add(x, y, name="add") if is_residual else y


def mobilenet_v2(net: NetworkBuilder, x: ir.Value) -> None:
    """MobileNetV2 on `(batch, 3, 224, 224)`."""
    y = _conv_bn_relu6(net, x, 32, kernel=3, stride=2, name="features.0")
    index = 1
    for expansion, channels, blocks, first_stride in _STAGES:
        for block in range(blocks):
            with net.scope(f"features.{index}"):
                stride = first_stride if block == 0 else 1
                y = _inverted_residual(net, y, expansion, channels, stride)
            index += 1
    y = _conv_bn_relu6(net, y, 1280, name=f"features.{index}")
    net.classifier(y, 1000, name="classifier.1")
