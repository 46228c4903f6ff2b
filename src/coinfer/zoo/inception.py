"""Inception v3 (Szegedy et al. 2016) without auxiliary head, as in torchvision's `inception.py`.

Module kinds A to E are the reference's. Knows nothing of the zoo's table.
"""

from __future__ import annotations

import onnx_ir as ir

from coinfer.zoo.builder import NetworkBuilder, Size

__all__ = ["inception_v3"]


def _conv(
    net: NetworkBuilder,
    x: ir.Value,
    channels: int,
    *,
    kernel: Size = 1,
    stride: int = 1,
    padding: Size | None = None,
    name: str,
) -> ir.Value:
    """Convolution, batch norm, rectifier."""
    with net.scope(name):
        y = net.conv(x, channels, kernel=kernel, stride=stride, padding=padding, name="conv")
        return net.relu(net.batch_norm(y, epsilon=1e-3, name="bn"), name="relu")


def _branch(net: NetworkBuilder, x: ir.Value, name: str, *convs: tuple[int, Size]) -> ir.Value:
    """Convolutions in a row, each of so many channels and with its kernel."""
    for index, (channels, kernel) in enumerate(convs, start=1):
        x = _conv(net, x, channels, kernel=kernel, name=f"{name}_{index}")
    return x


def _pooled(net: NetworkBuilder, x: ir.Value, channels: int) -> ir.Value:
    y = net.average_pool(x, kernel=3, stride=1, padding=1, name="avg_pool")
    return _conv(net, y, channels, name="branch_pool")


def _module_a(net: NetworkBuilder, x: ir.Value, pool_channels: int) -> ir.Value:
    one = _conv(net, x, 64, name="branch1x1")
    five = _branch(net, x, "branch5x5", (48, 1), (64, 5))
    double = _branch(net, x, "branch3x3dbl", (64, 1), (96, 3), (96, 3))
    return net.concat([one, five, double, _pooled(net, x, pool_channels)], name="concat")


def _module_b(net: NetworkBuilder, x: ir.Value) -> ir.Value:
    three = _conv(net, x, 384, kernel=3, stride=2, padding=0, name="branch3x3")
    double = _branch(net, x, "branch3x3dbl", (64, 1), (96, 3))
    double = _conv(net, double, 96, kernel=3, stride=2, padding=0, name="branch3x3dbl_3")
    pool = net.max_pool(x, kernel=3, stride=2, name="max_pool")
    return net.concat([three, double, pool], name="concat")


def _module_c(net: NetworkBuilder, x: ir.Value, channels: int) -> ir.Value:
    row, column = (channels, (1, 7)), (channels, (7, 1))
    one = _conv(net, x, 192, name="branch1x1")
    seven = _branch(net, x, "branch7x7", (channels, 1), row, (192, (7, 1)))
    double = _branch(net, x, "branch7x7dbl", (channels, 1), column, row, column, (192, (1, 7)))
    return net.concat([one, seven, double, _pooled(net, x, 192)], name="concat")


def _module_d(net: NetworkBuilder, x: ir.Value) -> ir.Value:
    three = _conv(net, x, 192, name="branch3x3_1")
    three = _conv(net, three, 320, kernel=3, stride=2, padding=0, name="branch3x3_2")
    seven = _branch(net, x, "branch7x7x3", (192, 1), (192, (1, 7)), (192, (7, 1)))
    seven = _conv(net, seven, 192, kernel=3, stride=2, padding=0, name="branch7x7x3_4")
    pool = net.max_pool(x, kernel=3, stride=2, name="max_pool")
    return net.concat([three, seven, pool], name="concat")


def _split(net: NetworkBuilder, x: ir.Value, branch: str) -> ir.Value:
    """Filter along the rows and along the columns side by side."""
    rows = _conv(net, x, 384, kernel=(1, 3), name=f"{branch}a")
    columns = _conv(net, x, 384, kernel=(3, 1), name=f"{branch}b")
    return net.concat([rows, columns], name=f"{branch}_concat")


def _module_e(net: NetworkBuilder, x: ir.Value) -> ir.Value:
    one = _conv(net, x, 320, name="branch1x1")
    three = _conv(net, x, 384, name="branch3x3_1")
    three = _split(net, three, "branch3x3_2")
    double = _branch(net, x, "branch3x3dbl", (448, 1), (384, 3))
    double = _split(net, double, "branch3x3dbl_3")
    return net.concat([one, three, double, _pooled(net, x, 192)], name="concat")


def _stem(net: NetworkBuilder, x: ir.Value) -> ir.Value:
    y = _conv(net, x, 32, kernel=3, stride=2, padding=0, name="Conv2d_1a_3x3")
    y = _conv(net, y, 32, kernel=3, padding=0, name="Conv2d_2a_3x3")
    y = _conv(net, y, 64, kernel=3, name="Conv2d_2b_3x3")
    y = net.max_pool(y, kernel=3, stride=2, name="maxpool1")
    y = _conv(net, y, 80, name="Conv2d_3b_1x1")
    y = _conv(net, y, 192, kernel=3, padding=0, name="Conv2d_4a_3x3")
    return net.max_pool(y, kernel=3, stride=2, name="maxpool2")


def inception_v3(net: NetworkBuilder, x: ir.Value) -> None:
    """Inception v3 on `(batch, 3, 299, 299)`."""
    y = _stem(net, x)
    for letter, pool_channels in (("b", 32), ("c", 64), ("d", 64)):
        with net.scope(f"Mixed_5{letter}"):
            y = _module_a(net, y, pool_channels)
    with net.scope("Mixed_6a"):
        y = _module_b(net, y)
    for letter, channels in (("b", 128), ("c", 160), ("d", 160), ("e", 192)):
        with net.scope(f"Mixed_6{letter}"):
            y = _module_c(net, y, channels)
    with net.scope("Mixed_7a"):
        y = _module_d(net, y)
    for letter in ("b", "c"):
        with net.scope(f"Mixed_7{letter}"):
            y = _module_e(net, y)
    net.classifier(y, 1000, name="fc")
