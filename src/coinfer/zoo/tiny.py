"""Networks that run in microseconds, for tests and examples. Knows nothing of the zoo's table."""

from __future__ import annotations

import onnx_ir as ir

from coinfer.zoo.builder import NetworkBuilder

__all__ = ["tiny_branchy", "tiny_cnn", "tiny_mlp"]


def _stem(net: NetworkBuilder, x: ir.Value, channels: int, stride: int, name: str) -> ir.Value:
    with net.scope(name):
        y = net.conv(x, channels, kernel=3, stride=stride, name="conv")
        return net.relu(net.batch_norm(y, name="bn"), name="relu")


def tiny_mlp(net: NetworkBuilder, x: ir.Value) -> None:
    """Two dense layers on `(batch, 16)`."""
    y = net.relu(net.gemm(x, 32, name="fc1"), name="relu")
    net.output(net.gemm(y, 10, name="fc2"), "logits")


def tiny_cnn(net: NetworkBuilder, x: ir.Value) -> None:
    """Two convolutions with batch norm and a classifier on `(batch, 3, 32, 32)`."""
    y = _stem(net, x, 8, 1, "stem1")
    y = _stem(net, y, 16, 2, "stem2")
    net.classifier(y, 10, name="fc")


def tiny_branchy(net: NetworkBuilder, x: ir.Value) -> None:
    """Two branches that meet again, a residual sum, and three outputs on `(batch, 3, 32, 32)`."""
    trunk = _stem(net, x, 8, 2, "stem")
    left = _stem(net, trunk, 8, 1, "left")
    right = net.relu(net.conv(trunk, 8, bias=True, name="right.conv"), name="right.relu")
    joined = net.concat([left, right], name="concat")
    deep = net.add(joined, _stem(net, joined, 16, 1, "deep"), name="add")
    pooled = net.flatten(net.global_average_pool(deep, name="avgpool"), name="flatten")
    net.output(net.conv(deep, 1, bias=True, name="mask"), "mask")
    net.output(net.gemm(pooled, 10, name="fc"), "logits")
    net.output(pooled, "embedding")
