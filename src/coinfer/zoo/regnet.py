"""RegNetY (Radosavovic et al. 2020), as in torchvision's `regnet.py`.

Knows nothing of the zoo's table.
"""

from __future__ import annotations

import onnx_ir as ir

from coinfer.zoo.builder import NetworkBuilder

__all__ = ["regnet_y_32gf"]

_BRANCH_GAIN = 0.5
"""Scale of a residual branch against unit variance."""


def _squeeze_excite(net: NetworkBuilder, x: ir.Value, squeezed: int) -> ir.Value:
    """Weigh each channel by a gate computed from all channel means."""
    with net.scope("se"):
        gate = net.global_average_pool(x, name="avgpool")
        gate = net.relu(net.conv(gate, squeezed, bias=True, name="fc1"), name="relu")
        gate = net.conv(gate, net.shape(x)[0], bias=True, name="fc2")
        return net.multiply(x, net.sigmoid(gate, name="sigmoid"), name="scale")


def _block(
    net: NetworkBuilder, x: ir.Value, channels: int, stride: int, group_width: int
) -> ir.Value:
    """Residual bottleneck without bottleneck: 1x1, grouped 3x3, squeeze-excite, 1x1."""
    y = net.conv(x, channels, name="f.a.0")
    y = net.relu(net.batch_norm(y, name="f.a.1"), name="f.a.2")
    groups = channels // group_width
    y = net.conv(y, channels, kernel=3, stride=stride, groups=groups, name="f.b.0")
    y = net.relu(net.batch_norm(y, name="f.b.1"), name="f.b.2")
    y = _squeeze_excite(net, y, round(net.shape(x)[0] / 4))
    y = net.batch_norm(net.conv(y, channels, name="f.c.0"), gain=_BRANCH_GAIN, name="f.c.1")
    if stride != 1 or net.shape(x)[0] != channels:
        x = net.batch_norm(net.conv(x, channels, stride=stride, name="proj.0"), name="proj.1")
    return net.relu(net.add(x, y, name="add"), name="activation")


def regnet_y_32gf(net: NetworkBuilder, x: ir.Value) -> None:
    """RegNetY of 32 GF (w_0=232, w_a=115.89, w_m=2.53, group 232) on `(batch, 3, 224, 224)`."""
    y = net.conv(x, 32, kernel=3, stride=2, name="stem.0")
    y = net.relu(net.batch_norm(y, name="stem.1"), name="stem.2")
    stages = ((2, 232), (5, 696), (12, 1392), (1, 3712))
    for stage, (depth, channels) in enumerate(stages, start=1):
        for block in range(depth):
            with net.scope(f"trunk_output.block{stage}.block{stage}-{block}"):
                y = _block(net, y, channels, 2 if block == 0 else 1, group_width=232)
    net.classifier(y, 1000, name="fc")
