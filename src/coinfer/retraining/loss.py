"""Loss: what a student is trained on: the answers of its teacher, and the right ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coinfer.errors import ConfigurationError
from coinfer.retraining.library import torch
from coinfer.retraining.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["distillation_loss"]


def distillation_loss(
    student: Tensor, teacher: Tensor | None, target: Tensor | None, recipe: Recipe
) -> Tensor:
    """Return the loss of a classifier (Hinton, Vinyals and Dean 2015, arXiv 1503.02531, section 2).

    The Kullback-Leibler divergence of softened answers, times the squared temperature, and the
    cross entropy with the classes, by the recipe's share. Without classes the former
    alone, without a teacher the latter.

    Args:
        student: Scores, (samples, classes, ...).
        teacher: Those of the original, of the same shape; None: there is no teacher.
        target: Classes, (samples, ...) of integers; None: there are none.
        recipe: Temperature and share.

    Raises:
        ConfigurationError: what both give is not of the same shape, or is no tensor, or there
            is nothing to learn from.
    """
    functional = torch().nn.functional
    if teacher is None:
        if target is None:
            raise ConfigurationError("there is nothing to learn from: no teacher and no classes")
        return functional.cross_entropy(student, target)
    if getattr(student, "shape", None) != getattr(teacher, "shape", None) or student is None:
        raise ConfigurationError(
            "student and teacher do not give one tensor of the same shape; give a loss that takes "
            "what they give"
        )
    soft = recipe.temperature
    found = functional.kl_div(
        functional.log_softmax(student / soft, 1),
        functional.log_softmax(teacher / soft, 1),
        reduction="sum",
        log_target=True,
    )
    # Per answer, as the cross entropy is: of a map of classes there are many in a sample.
    found = found * soft**2 / max(1, student.numel() // student.shape[1])
    if target is None:
        return found
    right = functional.cross_entropy(student, target)
    return recipe.distillation * found + (1 - recipe.distillation) * right
