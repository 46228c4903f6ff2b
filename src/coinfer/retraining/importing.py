"""Importing: a torch module of an ONNX model, to be decomposed and trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coinfer.model import Model
from coinfer.retraining.library import torch

if TYPE_CHECKING:
    from torch.nn import Module

__all__ = ["imported"]


def imported(model: Model, *, device: str = "cpu") -> Module:
    """Return a model as a torch module that computes the same in evaluation mode.

    Convolutions, dense layers and batch normalisations whose weights are constant become layers of
    torch, by the names of the values that they make; `decompose` and `train` take it. What else is
    constant is not trained.

    Args:
        model: In single precision.
        device: Where the module is made and stays.

    Raises:
        ConfigurationError: torch is not installed.
        BackendError: torch has no function for an operator; the message names it.

    >>> from coinfer.model import model_from_ir
    >>> from coinfer.zoo.registry import build
    >>> module = imported(model_from_ir(build("lenet"), name="lenet"))
    >>> sum(parameter.numel() for parameter in module.parameters())
    61706
    """
    where = torch().device(device)
    # It imports torch, which must not be needed to import this package.
    from coinfer.backends.torch.network import Network

    return Network(model, where, f"model {model.name!r}")
