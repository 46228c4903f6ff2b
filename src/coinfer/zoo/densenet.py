"""DenseNet (Huang et al. 2017), as in torchvision's `densenet.py`.

Knows nothing of the zoo's table.
"""

from __future__ import annotations

import onnx_ir as ir

from coinfer.zoo.builder import NetworkBuilder

__all__ = ["densenet201"]

_GROWTH = 32
_BOTTLENECK = 4 * _GROWTH


def _dense_layer(net: NetworkBuilder, x: ir.Value) -> ir.Value:
    """Normalise, narrow by 1x1, filter by 3x3, and append the result to the input's channels."""
    y = net.relu(net.batch_norm(x, name="norm1"), name="relu1")
    y = net.conv(y, _BOTTLENECK, name="conv1")
    y = net.relu(net.batch_norm(y, name="norm2"), name="relu2")
    y = net.conv(y, _GROWTH, kernel=3, name="conv2")
    return net.concat([x, y], name="concat")


def _transition(net: NetworkBuilder, x: ir.Value) -> ir.Value:
    """Halve channels, height and width."""
    y = net.relu(net.batch_norm(x, name="norm"), name="relu")
    y = net.conv(y, net.shape(x)[0] // 2, name="conv")
    return net.average_pool(y, kernel=2, stride=2, name="pool")


def densenet201(net: NetworkBuilder, x: ir.Value) -> None:
    """DenseNet of 201 layers on `(batch, 3, 224, 224)`."""
    with net.scope("features"):
        y = net.conv(x, 64, kernel=7, stride=2, name="conv0")
        y = net.relu(net.batch_norm(y, name="norm0"), name="relu0")
        y = net.max_pool(y, kernel=3, stride=2, padding=1, name="pool0")
        for block, layers in enumerate((6, 12, 48, 32), start=1):
            for layer in range(1, layers + 1):
                with net.scope(f"denseblock{block}.denselayer{layer}"):
                    y = _dense_layer(net, y)
            if block < 4:
                with net.scope(f"transition{block}"):
                    y = _transition(net, y)
        y = net.relu(net.batch_norm(y, name="norm5"), name="relu5")
    net.classifier(y, 1000, name="classifier")
