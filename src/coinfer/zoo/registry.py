"""The zoo's table: which networks there are, their published figures, and which module builds them.

A family's module is imported when one of its networks is built. Knows no layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Final

import numpy as np
import onnx_ir as ir

from coinfer.errors import UnknownNameError
from coinfer.zoo.builder import NetworkBuilder

__all__ = ["ZooEntry", "build", "names", "sample_inputs", "spec"]

_NOTICE = "Weights are seeded random numbers, not trained: timings are real, answers are not."


@dataclass(frozen=True, slots=True)
class ZooEntry:
    """What is known of a network before it is built.

    Attributes:
        name: Name to ask for it.
        title: Name that a person recognises.
        family: Module of `coinfer.zoo` that builds it, with a function called `name`.
        input_shape: Shape of the one input without the batch dimension.
        parameters: Published trainable parameters; batch-norm running statistics do not count.
        macs: Published multiply-accumulate operations for one input, often rounded.
        source: Where the figures come from. `torchvision` is its table of weights (num_params and
            GFLOPS, which are MACs in units of 1e9); Hugging Face publishes parameters only. All
            other figures were computed by hand from the published layer sizes and are exact.
        vocabulary: For token ids, how many there are; None for pictures and vectors.
    """

    name: str
    title: str
    family: str
    input_shape: tuple[int, ...]
    parameters: int
    macs: int
    source: str = "torchvision"
    vocabulary: int | None = None

    @property
    def input_name(self) -> str:
        """Name of the one input."""
        if self.vocabulary is not None:
            return "input_ids"
        return "image" if len(self.input_shape) == 3 else "x"

    @property
    def input_dtype(self) -> str:
        """NumPy name of the input's element type."""
        return "float32" if self.vocabulary is None else "int64"


_IMAGENET = (3, 224, 224)
_CIFAR = (3, 32, 32)
_LAYERS = "layer sizes"


def _bert(name: str, title: str, parameters: int, macs: int) -> ZooEntry:
    return ZooEntry(
        name, title, "transformer", (128,), parameters, macs, "Hugging Face", vocabulary=30522
    )


# Name, title, family, input shape, parameters, MACs; then the source and the vocabulary.
_ENTRIES: Final = (
    ZooEntry("mobilenet_v2", "MobileNetV2", "mobilenet", _IMAGENET, 3_504_872, 301_000_000),
    ZooEntry("resnet50", "ResNet-50", "resnet", _IMAGENET, 25_557_032, 4_089_000_000),
    ZooEntry("resnet101", "ResNet-101", "resnet", _IMAGENET, 44_549_160, 7_801_000_000),
    ZooEntry("resnet152", "ResNet-152", "resnet", _IMAGENET, 60_192_808, 11_514_000_000),
    ZooEntry("resnext50", "ResNeXt-50 32x4d", "resnet", _IMAGENET, 25_028_904, 4_230_000_000),
    ZooEntry("vgg16", "VGG-16", "vgg", _IMAGENET, 138_357_544, 15_470_000_000),
    ZooEntry("vgg19", "VGG-19", "vgg", _IMAGENET, 143_667_240, 19_632_000_000),
    ZooEntry("inception_v3", "Inception v3", "inception", (3, 299, 299), 23_834_568, 5_713_000_000),
    ZooEntry("regnet_y_32gf", "RegNetY-32GF", "regnet", _IMAGENET, 145_046_770, 32_280_000_000),
    ZooEntry("alexnet", "AlexNet", "alexnet", _IMAGENET, 61_100_840, 714_000_000),
    ZooEntry("squeezenet1_1", "SqueezeNet 1.1", "squeezenet", _IMAGENET, 1_235_496, 349_000_000),
    ZooEntry("densenet201", "DenseNet-201", "densenet", _IMAGENET, 20_013_928, 4_291_000_000),
    ZooEntry("lenet", "LeNet-5", "lenet", (1, 32, 32), 61_706, 416_520, "LeCun et al. 1998"),
    _bert("bert_base", "BERT-base encoder", 109_482_240, 11_174_215_680),
    _bert("distilbert", "DistilBERT encoder", 66_362_880, 5_586_812_928),
    ZooEntry("small_resnet", "ResNet-20", "resnet", _CIFAR, 272_474, 40_813_184, _LAYERS),
    ZooEntry("tiny_mlp", "tiny perceptron", "tiny", (16,), 874, 832, _LAYERS),
    ZooEntry("tiny_cnn", "tiny CNN", "tiny", _CIFAR, 1_586, 516_256, _LAYERS),
    ZooEntry("tiny_branchy", "tiny branching CNN", "tiny", _CIFAR, 3_419, 813_216, _LAYERS),
    ZooEntry("tiny_encoder", "tiny encoder", "transformer", (16,), 20_864, 294_912, _LAYERS, 100),
)
_TABLE: Final = {entry.name: entry for entry in _ENTRIES}


def names() -> tuple[str, ...]:
    """List the networks: published ones first, then the small ones for tests.

    >>> names()[:2]
    ('mobilenet_v2', 'resnet50')
    """
    return tuple(_TABLE)


def spec(name: str) -> ZooEntry:
    """Tell what was published about a network, without building it.

    Raises:
        UnknownNameError: no network of that name.

    >>> spec("resnet50").parameters
    25557032
    """
    if name not in _TABLE:
        raise UnknownNameError.of(
            "zoo network", name, _TABLE, hint="See them with `coinfer zoo list`."
        )
    return _TABLE[name]


def build(name: str, *, seed: int = 0) -> ir.Model:
    """Build a network with seeded random weights.

    The batch dimension is symbolic. Weights are drawn when first read; equal seeds give equal
    bits with the same version of NumPy, different seeds independent weights in the same structure.

    Args:
        name: One of `names()`.
        seed: Decides the weights.

    Raises:
        UnknownNameError: no network of that name.

    >>> build("tiny_mlp").graph.outputs[0].name
    'logits'
    """
    entry = spec(name)
    layers: Callable[[NetworkBuilder, ir.Value], None] = getattr(
        import_module(f"coinfer.zoo.{entry.family}"), name
    )
    net = NetworkBuilder(name, seed)
    dtype = ir.DataType.from_numpy(np.dtype(entry.input_dtype))
    layers(net, net.input(entry.input_name, entry.input_shape, dtype))
    return net.model(f"{entry.title}, seed {seed}. {_NOTICE}", _metadata(entry, seed))


def _metadata(entry: ZooEntry, seed: int) -> dict[str, str]:
    properties = {"coinfer.zoo.network": entry.name, "coinfer.zoo.seed": str(seed)}
    if entry.vocabulary is not None:
        properties[f"coinfer.input.{entry.input_name}.high"] = str(entry.vocabulary)
    return properties


def sample_inputs(
    name: str, *, batch: int = 1, seed: int = 0
) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    """Draw inputs that fit a network: unit Gaussian pixels, or uniform token ids.

    Raises:
        UnknownNameError: no network of that name.

    >>> sample_inputs("lenet", batch=2)["image"].shape
    (2, 1, 32, 32)
    """
    entry, generator = spec(name), np.random.default_rng(seed)
    shape = (batch, *entry.input_shape)
    if entry.vocabulary is not None:
        return {entry.input_name: generator.integers(entry.vocabulary, size=shape, dtype=np.int64)}
    return {entry.input_name: generator.standard_normal(shape, dtype=np.float32)}
