"""The zoo's networks have the published number of parameters and of multiply-adds.

Parameters: torchvision's table of weights, except Inception v3, whose 27,161,264 there include the
auxiliary head's 3,326,696; Hugging Face's checkpoints for the encoders.
MACs: torchvision's GFLOPS column, which counts one multiply-add as one and rounds to 1e6;
closed forms for the rest. Typed in again here, so that the zoo's own table is tested as well.
"""

from __future__ import annotations

import pytest

from coinfer import zoo
from coinfer.errors import UnknownNameError
from coinfer.graph.cost import operator_costs, total

TORCHVISION = {
    "mobilenet_v2": (3_504_872, 0.301),
    "resnet50": (25_557_032, 4.089),
    "resnet101": (44_549_160, 7.801),
    "resnet152": (60_192_808, 11.514),
    "resnext50": (25_028_904, 4.23),
    "vgg16": (138_357_544, 15.47),
    "vgg19": (143_667_240, 19.632),
    "inception_v3": (27_161_264 - 3_326_696, 5.713),
    "regnet_y_32gf": (145_046_770, 32.28),
    "alexnet": (61_100_840, 0.714),
    "squeezenet1_1": (1_235_496, 0.349),
    "densenet201": (20_013_928, 4.291),
}


def encoder_macs(layers: int, tokens: int = 128, width: int = 768, inner: int = 3072) -> int:
    """Four projections, scores and context, and the two feed-forward products, per layer."""
    projections = tokens * (4 * width**2 + 2 * width * inner)
    attention = 2 * tokens**2 * width
    return layers * (projections + attention)


EXACT = {
    "lenet": (61_706, 28**2 * 6 * 25 + 10**2 * 16 * 150 + 400 * 120 + 120 * 84 + 84 * 10),
    "bert_base": (109_482_240, encoder_macs(12) + 768**2),
    "distilbert": (66_362_880, encoder_macs(6)),
    "tiny_encoder": (20_864, encoder_macs(2, tokens=16, width=32, inner=64)),
    "tiny_mlp": (16 * 32 + 32 + 32 * 10 + 10, 16 * 32 + 32 * 10),
}


def cost(name: str):
    return total(operator_costs(zoo.build(name)))


@pytest.mark.parametrize("name", TORCHVISION)
def test_parameters_and_macs_equal_torchvision(name: str) -> None:
    parameters, gmacs = TORCHVISION[name]
    counted = cost(name)
    assert counted.trainable_parameters == parameters
    # Half a unit of the last printed digit, in a figure that may be as small as 0.301.
    assert counted.macs == pytest.approx(gmacs * 1e9, rel=0.005)


@pytest.mark.parametrize("name", EXACT)
def test_parameters_and_macs_equal_the_closed_form(name: str) -> None:
    counted = cost(name)
    assert (counted.trainable_parameters, counted.macs) == EXACT[name]


@pytest.mark.parametrize(("name", "gflops"), [("bert_base", 22.5), ("distilbert", 11.3)])
def test_encoder_macs_agree_with_published_flops(name: str, gflops: float) -> None:
    # Jiao et al. 2020 (TinyBERT), table 1, at 128 tokens; two operations per multiply-add, and
    # unlike here softmax, Gelu and normalisation count as well: about one part in a hundred.
    assert cost(name).macs == pytest.approx(gflops * 1e9 / 2, rel=0.015)


@pytest.mark.parametrize("name", zoo.names())
def test_table_of_the_zoo_agrees_with_the_graph(name: str) -> None:
    entry, counted = zoo.spec(name), cost(name)
    assert counted.trainable_parameters == entry.parameters
    assert counted.macs == pytest.approx(entry.macs, rel=0.001)
    assert counted.unknown_operators == ()


def test_batch_norm_statistics_are_stored_but_not_trainable() -> None:
    counted = cost("resnet50")
    # Torch's buffers for the 53 layers, without the count of batches seen.
    assert counted.parameters - counted.trainable_parameters == 2 * 26_560


def test_unknown_network_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'resnet50'"):
        zoo.build("resnet5O")
