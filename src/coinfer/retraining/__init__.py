"""Retraining: decompose torch modules, train them to what they were; from ONNX and back."""

from coinfer.retraining.accuracy import accuracy
from coinfer.retraining.cifar10 import read_cifar10
from coinfer.retraining.decomposition import DecomposedLayer, Decomposition, choose_ranks, decompose
from coinfer.retraining.exporting import exported
from coinfer.retraining.importing import imported
from coinfer.retraining.loss import distillation_loss
from coinfer.retraining.recipe import Recipe
from coinfer.retraining.training import Epoch, Training, train

__all__ = [
    "DecomposedLayer",
    "Decomposition",
    "Epoch",
    "Recipe",
    "Training",
    "accuracy",
    "choose_ranks",
    "decompose",
    "distillation_loss",
    "exported",
    "imported",
    "read_cifar10",
    "train",
]
