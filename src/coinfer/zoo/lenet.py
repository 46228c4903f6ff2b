"""LeNet-5 (LeCun et al. 1998), with the second convolution connected to all channels.

Knows nothing of the zoo's table.
"""

from __future__ import annotations

import onnx_ir as ir

from coinfer.zoo.builder import NetworkBuilder

__all__ = ["lenet"]


def lenet(net: NetworkBuilder, x: ir.Value) -> None:
    """LeNet-5 on grey pictures `(batch, 1, 32, 32)`."""
    y = x
    for index, channels in ((1, 6), (2, 16)):
        y = net.conv(y, channels, kernel=5, padding=0, bias=True, name=f"conv{index}")
        y = net.tanh(y, name=f"tanh{index}")
        y = net.average_pool(y, kernel=2, stride=2, name=f"pool{index}")
    y = net.flatten(y, name="flatten")
    for index, features in ((1, 120), (2, 84)):
        y = net.tanh(net.gemm(y, features, name=f"fc{index}"), name=f"tanh{index + 2}")
    net.output(net.gemm(y, 10, name="fc3"), "logits")
