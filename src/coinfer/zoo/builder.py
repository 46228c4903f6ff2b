"""Write ONNX graphs layer by layer, in the words of the networks' papers.

Keeps the shape and the expected moments of every value, which fix the shapes and the scale of the
weights. Knows no network by name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from coinfer.zoo.moments import Moments
from coinfer.zoo.weights import Array, Draw, seeded_tensor

__all__ = ["NetworkBuilder", "Size"]

_OPSET = 20
_IR_VERSION = 10
_JITTER = 0.1
"""Spread of biases and batch-norm parameters: a transform that mixes them up must show."""

Attribute = int | float | str | Sequence[int]

Size = int | tuple[int, int]
"""Height and width, or one number for both."""

_Axis = tuple[int, int, int, int]
"""Along one axis: length of the picture, kernel, stride, padding."""


def _pair(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _window(length: int, kernel: int, stride: int, padding: int) -> int:
    """Positions of a sliding window on an axis."""
    return (length + 2 * padding - kernel) // stride + 1


def _coverage(length: int, kernel: int, stride: int, padding: int) -> float:
    """Mean share of a window's taps that lie on the picture and not on the padding."""
    starts = [i * stride - padding for i in range(_window(length, kernel, stride, padding))]
    taps = sum(min(start + kernel, length) - max(start, 0) for start in starts)
    return taps / (kernel * len(starts))


def _axes(size: Sequence[int], kernel: Size, stride: Size, padding: Size) -> list[_Axis]:
    return list(zip(size, _pair(kernel), _pair(stride), _pair(padding), strict=True))


def _sliding(channels: int, axes: Sequence[_Axis]) -> dict[str, Any]:
    """Shape and attributes of a node that slides a window over a picture."""
    _, kernels, strides, pads = zip(*axes, strict=True)
    shape = (channels, *(_window(*axis) for axis in axes))
    return {"shape": shape, "kernel_shape": kernels, "strides": strides, "pads": pads * 2}


class NetworkBuilder:
    """A graph under construction. Layer methods take and return values and append nodes.

    Every value has a full shape whose first dimension is `batch`; convolutions use the layout
    `(batch, channels, height, width)`. Layers are named as in the reference implementation, with
    `scope` for the parts before the dot; a layer's weights are `LAYER.weight` and `LAYER.bias`.

    Args:
        network: Name that, with the seed, decides the weights.
        seed: Weights with different seeds are independent.

    >>> net = NetworkBuilder("example", seed=0)
    >>> x = net.input("x", (3, 32, 32))
    >>> y = net.relu(net.conv(x, 8, kernel=3, name="conv"), name="relu")
    >>> net.output(y, "y")
    >>> [node.op_type for node in net.model("one layer").graph]
    ['Conv', 'Relu']
    """

    def __init__(self, network: str, seed: int) -> None:
        self.network = network
        self._seed = seed
        self._tape = Tape()
        self._scopes: list[str] = []
        self._moments: dict[ir.Value, Moments] = {}
        self._offsets: dict[ir.Value, tuple[ir.TensorProtocol, float]] = {}
        self._inputs: list[ir.Value] = []
        self._outputs: list[ir.Value] = []

    # Graph

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Put `name.` before the names of the layers added inside the block."""
        self._scopes.append(name)
        yield
        self._scopes.pop()

    def input(
        self, name: str, shape: Sequence[int], dtype: ir.DataType = ir.DataType.FLOAT
    ) -> ir.Value:
        """Add a graph input of shape `(batch, *shape)`, taken to be normalised."""
        value = ir.val(name, dtype, ["batch", *shape])
        self._moments[value] = Moments()
        self._inputs.append(value)
        return value

    def output(self, value: ir.Value, name: str) -> None:
        """Make the value a graph output under that name."""
        value.name = name
        self._outputs.append(value)

    def model(self, doc: str, metadata: Mapping[str, str] | None = None) -> ir.Model:
        """Finish: everything added so far, as a model."""
        graph = ir.Graph(
            self._inputs,
            self._outputs,
            nodes=self._tape.nodes,
            initializers=self._tape.initializers,
            opset_imports={"": _OPSET},
            name=self.network,
            doc_string=doc,
        )
        return ir.Model(
            graph,
            ir_version=_IR_VERSION,
            producer_name="coinfer.zoo",
            doc_string=doc,
            metadata_props=dict(metadata or {}),
        )

    def _name(self, name: str) -> str:
        return ".".join([*self._scopes, name])

    def _add(
        self,
        op_type: str,
        inputs: Sequence[ir.Value],
        moments: Moments | None = None,
        shape: Sequence[int] | None = None,
        *,
        name: str,
        **attributes: Attribute,
    ) -> ir.Value:
        """Append a node; its value has the moments and the shape of its first input by default."""
        full = self._name(name)
        value = self._tape.op(op_type, inputs, attributes, name=full)
        value.name = f"{full}.out"
        value.type = ir.TensorType(ir.DataType.FLOAT)
        value.shape = ir.Shape(["batch", *(self.shape(inputs[0]) if shape is None else shape)])
        self._moments[value] = moments or self._moments[inputs[0]]
        return value

    def _drawn(self, name: str, shape: Sequence[int], draw: Draw) -> ir.Value:
        """Add a tensor with values that are drawn on first use."""
        tensor = seeded_tensor(self.network, self._seed, self._name(name), shape, draw)
        return self._tape.initializer(tensor)

    def _weight(
        self,
        name: str,
        shape: Sequence[int],
        *,
        mean: float = 0.0,
        deviation: float = _JITTER,
        centred: bool = False,
    ) -> ir.Value:
        """Add a tensor of independent Gaussian values, those of a bias by default.

        Args:
            name: Name of the tensor within the scopes.
            shape: Its shape; of filters `(filters, ...)`.
            mean: Mean of one value.
            deviation: Standard deviation of one value.
            centred: Make each filter sum to zero, so that the mean that all channels of a
                rectified input share does not pass. Without it the part of the signal that
                is the same for every input grows with depth until outputs hardly depend on inputs.
        """

        def draw(generator: np.random.Generator) -> Array:
            values = generator.standard_normal(shape, dtype=np.float32)
            if centred:
                values -= values.mean(axis=tuple(range(1, len(shape))), keepdims=True)
            values *= np.float32(deviation)
            values += np.float32(mean)
            return values

        return self._drawn(name, shape, draw)

    def constant(self, array: Array | np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> ir.Value:
        """Add a constant that is part of the formula and not a parameter, e.g. a bound."""
        tensor = ir.tensor(array)
        name = self._name(f"constant_{len(self._tape.nodes)}")
        value = self._tape.op("Constant", [], {"value": tensor}, name=name)
        value.name = f"{name}.out"
        value.type = ir.TensorType(tensor.dtype)
        value.shape = ir.Shape(array.shape)
        return value

    @staticmethod
    def shape(value: ir.Value) -> tuple[int, ...]:
        """Shape of a value without its batch dimension."""
        assert value.shape is not None
        return tuple(int(d) for d in value.shape.dims[1:] if isinstance(d, int))

    # Layers with weights

    def conv(
        self,
        x: ir.Value,
        channels: int,
        *,
        kernel: Size = 1,
        stride: Size = 1,
        padding: Size | None = None,
        groups: int = 1,
        bias: bool = False,
        name: str,
    ) -> ir.Value:
        """Convolve. Without `padding`, odd kernels at stride 1 keep height and width.

        Weights are drawn so that each output element has unit variance.
        """
        (in_channels, *size), kernels = self.shape(x), _pair(kernel)
        same = (kernels[0] // 2, kernels[1] // 2)
        axes = _axes(size, kernel, stride, same if padding is None else padding)
        width = in_channels // groups
        taps = width * math.prod(kernels) * math.prod(_coverage(*axis) for axis in axes)
        incoming = self._moments[x]
        weight = self._weight(
            f"{name}.weight",
            (channels, width, *kernels),
            deviation=1 / math.sqrt(taps * incoming.variance),
            # The nine taps of a depthwise filter must keep their sum, or it would see only edges.
            centred=incoming.mean != 0 and width > 1,
        )
        biases = [self._weight(f"{name}.bias", (channels,))] if bias else []
        value = self._add(
            "Conv",
            [x, weight, *biases],
            Moments(),
            name=name,
            **_sliding(channels, axes),
            group=groups,
            dilations=(1, 1),
        )
        if width == 1 and incoming.mean != 0 and weight.const_value is not None:
            self._offsets[value] = (weight.const_value, incoming.mean)
        return value

    def batch_norm(
        self, x: ir.Value, *, gain: float = 1.0, epsilon: float = 1e-5, name: str
    ) -> ir.Value:
        """Normalise each channel with running statistics, to a standard deviation of `gain`."""
        shape = self.shape(x)[:1]
        parameters = [
            self._weight(f"{name}.weight", shape, mean=gain, deviation=_JITTER * gain),
            self._weight(f"{name}.bias", shape, deviation=_JITTER * gain),
            *self._running_statistics(name, x),
        ]
        # Scale, bias, running mean and running variance each add their spread.
        moments = Moments(variance=gain**2 * (1 + 4 * _JITTER**2))
        inputs = [x, *parameters]
        return self._add("BatchNormalization", inputs, moments, name=name, epsilon=epsilon)

    def _running_statistics(self, name: str, x: ir.Value) -> list[ir.Value]:
        channels, incoming, offset = self.shape(x)[0], self._moments[x], self._offsets.get(x)
        deviation = math.sqrt(incoming.variance)

        def mean(generator: np.random.Generator) -> Array:
            jitter = np.float32(_JITTER * deviation)
            values = generator.standard_normal(channels, dtype=np.float32) * jitter
            values += np.float32(incoming.mean)
            if offset is not None:
                weight, shared = offset
                values += np.float32(shared) * weight.numpy().reshape(channels, -1).sum(axis=1)
            return values

        def variance(generator: np.random.Generator) -> Array:
            spread = generator.uniform(1 - _JITTER, 1 + _JITTER, channels)
            return np.square(deviation * spread).astype(np.float32)

        draws = {"running_mean": mean, "running_var": variance}
        return [self._drawn(f"{name}.{kind}", (channels,), draw) for kind, draw in draws.items()]

    def gemm(self, x: ir.Value, features: int, *, name: str) -> ir.Value:
        """Fully connected layer on `(batch, n)`, with bias; unit variance out."""
        (width,), incoming = self.shape(x), self._moments[x]
        deviation, centred = 1 / math.sqrt(width * incoming.variance), incoming.mean != 0
        shape = (features, width)
        weight = self._weight(f"{name}.weight", shape, deviation=deviation, centred=centred)
        inputs = [x, weight, self._weight(f"{name}.bias", (features,))]
        return self._add("Gemm", inputs, Moments(), (features,), name=name, transB=1)

    def dense(self, x: ir.Value, features: int, *, gain: float = 1.0, name: str) -> ir.Value:
        """Fully connected layer on the last axis of `(batch, tokens, n)`, with bias.

        Weights are stored as `(n, features)`; outputs have a standard deviation of `gain`.
        """
        *front, width = self.shape(x)
        deviation = gain / math.sqrt(width * self._moments[x].power)
        weight = self._weight(f"{name}.weight", (width, features), deviation=deviation)
        moments, shape = Moments(variance=gain**2), (*front, features)
        product = self._add("MatMul", [x, weight], moments, shape, name=f"{name}.matmul")
        return self._add("Add", [product, self._weight(f"{name}.bias", (features,))], name=name)

    def embedding(self, size: int, width: int, *, name: str) -> ir.Value:
        """Add a table of `(size, width)` and return it; read it with `gather`."""
        return self._weight(f"{name}.weight", (size, width), deviation=1.0)

    def layer_norm(self, x: ir.Value, *, epsilon: float = 1e-12, name: str) -> ir.Value:
        """Normalise over the last axis, with scale and bias."""
        shape = self.shape(x)[-1:]
        scale = self._weight(f"{name}.weight", shape, mean=1.0)
        inputs = [x, scale, self._weight(f"{name}.bias", shape)]
        return self._add(
            "LayerNormalization", inputs, Moments(), name=name, axis=-1, epsilon=epsilon
        )

    # Layers without weights

    def relu(self, x: ir.Value, *, name: str) -> ir.Value:
        """Rectify."""
        return self._add("Relu", [x], self._moments[x].rectified(), name=name)

    def relu6(self, x: ir.Value, *, name: str) -> ir.Value:
        """Clip to 0..6."""
        bounds = [self.constant(np.array(bound, np.float32)) for bound in (0.0, 6.0)]
        return self._add("Clip", [x, *bounds], self._moments[x].rectified(), name=name)

    def gelu(self, x: ir.Value, *, name: str) -> ir.Value:
        """Gaussian error linear unit, exact form."""
        return self._add("Gelu", [x], self._moments[x].rectified(), name=name)

    def tanh(self, x: ir.Value, *, name: str) -> ir.Value:
        """Hyperbolic tangent."""
        moments = Moments(variance=0.4)  # of tanh of a unit Gaussian
        return self._add("Tanh", [x], moments, name=name)

    def sigmoid(self, x: ir.Value, *, name: str) -> ir.Value:
        """Logistic function."""
        moments = Moments(mean=0.5, variance=0.04)  # of the logistic of a unit Gaussian
        return self._add("Sigmoid", [x], moments, name=name)

    def softmax(self, x: ir.Value, *, name: str) -> ir.Value:
        """Softmax over the last axis."""
        count = self.shape(x)[-1]
        moments = Moments(mean=1 / count, variance=1 / count**2)
        return self._add("Softmax", [x], moments, name=name, axis=-1)

    def add(self, a: ir.Value, b: ir.Value, *, name: str) -> ir.Value:
        """Add; `b` may broadcast to the shape of `a`."""
        moments = self._moments[a].plus(self._moments[b])
        return self._add("Add", [a, b], moments, name=name)

    def scale(self, x: ir.Value, factor: float, *, name: str) -> ir.Value:
        """Multiply by a constant."""
        moments = self._moments[x].times(Moments(mean=factor, variance=0.0))
        constant = self.constant(np.array(factor, np.float32))
        return self._add("Mul", [x, constant], moments, name=name)

    def multiply(self, x: ir.Value, gate: ir.Value, *, name: str) -> ir.Value:
        """Multiply elementwise; `gate` may broadcast over height and width."""
        moments = self._moments[x].times(self._moments[gate])
        return self._add("Mul", [x, gate], moments, name=name)

    def concat(self, values: Sequence[ir.Value], *, name: str) -> ir.Value:
        """Join along the channels."""
        shapes = [self.shape(value) for value in values]
        moments = Moments.mixed(
            [(self._moments[v], shape[0]) for v, shape in zip(values, shapes, strict=True)]
        )
        joined = (sum(shape[0] for shape in shapes), *shapes[0][1:])
        return self._add("Concat", values, moments, joined, name=name, axis=1)

    def max_pool(
        self,
        x: ir.Value,
        *,
        kernel: int,
        stride: int,
        padding: int = 0,
        ceil: bool = False,
        name: str,
    ) -> ir.Value:
        """Largest value of each window; `ceil` keeps a last window that is not full."""
        channels, *size = self.shape(x)
        if ceil:
            size = [length + stride - 1 for length in size]
        sliding = _sliding(channels, _axes(size, kernel, stride, padding))
        moments = self._moments[x].maximum(kernel**2)
        return self._add("MaxPool", [x], moments, name=name, **sliding, ceil_mode=int(ceil))

    def average_pool(
        self, x: ir.Value, *, kernel: int, stride: int, padding: int = 0, name: str
    ) -> ir.Value:
        """Mean of each window, padding counted as zeros."""
        channels, *size = self.shape(x)
        sliding = _sliding(channels, _axes(size, kernel, stride, padding))
        moments = self._moments[x].averaged(kernel**2)
        return self._add("AveragePool", [x], moments, name=name, **sliding, count_include_pad=1)

    def global_average_pool(self, x: ir.Value, *, name: str) -> ir.Value:
        """Mean over height and width, which stay as dimensions of one."""
        channels, *size = self.shape(x)
        moments = self._moments[x].averaged(math.prod(size))
        return self._add("GlobalAveragePool", [x], moments, (channels, 1, 1), name=name)

    def flatten(self, x: ir.Value, *, name: str) -> ir.Value:
        """Make `(batch, n)`."""
        return self._add("Flatten", [x], shape=(math.prod(self.shape(x)),), name=name, axis=1)

    def reshape(self, x: ir.Value, shape: Sequence[int], *, name: str) -> ir.Value:
        """Give the same elements the shape `(batch, *shape)`."""
        # 0 copies the dimension, so the batch stays whatever it is.
        target = self.constant(np.array([0, *shape], np.int64))
        return self._add("Reshape", [x, target], shape=shape, name=name)

    def transpose(self, x: ir.Value, order: Sequence[int], *, name: str) -> ir.Value:
        """Permute the axes after the batch; `order` counts from 1."""
        shape = [self.shape(x)[axis - 1] for axis in order]
        return self._add("Transpose", [x], shape=shape, name=name, perm=(0, *order))

    def matmul(
        self, a: ir.Value, b: ir.Value, *, moments: Moments | None = None, name: str
    ) -> ir.Value:
        """Multiply two batches of matrices, `(batch, ..., m, k)` by `(batch, ..., k, n)`."""
        *front, inner = self.shape(a)
        if moments is None:
            product = self._moments[a].times(self._moments[b])
            moments = Moments(mean=product.mean * inner, variance=product.variance * inner)
        return self._add("MatMul", [a, b], moments, (*front, self.shape(b)[-1]), name=name)

    def gather(self, table: ir.Value, ids: ir.Value, *, name: str) -> ir.Value:
        """Read the table's rows that `ids` of `(batch, tokens)` names."""
        shape = (*self.shape(ids), *self.shape(table))
        return self._add("Gather", [table, ids], Moments(), shape, name=name)

    def rows(self, table: ir.Value, indices: Sequence[int], *, name: str) -> ir.Value:
        """Read fixed rows of a table: a tensor `(rows, n)` without a batch dimension."""
        value = self.gather(table, self.constant(np.array(indices, np.int64)), name=name)
        value.shape = ir.Shape([len(indices), *self.shape(value)])
        return value

    def first_token(self, x: ir.Value, *, name: str) -> ir.Value:
        """Take the first token of `(batch, tokens, n)`, giving `(batch, n)`."""
        index = self.constant(np.array(0, np.int64))
        return self._add("Gather", [x, index], shape=self.shape(x)[1:], name=name, axis=1)

    # Ends of networks

    def classifier(self, x: ir.Value, classes: int, *, name: str) -> None:
        """Average over height and width, and make the scores of the classes an output."""
        y = self.flatten(self.global_average_pool(x, name="avgpool"), name="flatten")
        self.output(self.gemm(y, classes, name=name), "logits")
