"""Recipe: how a student is trained. A value."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import isfinite

from coinfer.errors import ConfigurationError

__all__ = ["Recipe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to train.

    Attributes:
        epochs: At most so many passes over the data.
        learning_rate: Of AdamW at the start; it falls to 0 as a half cosine over all epochs.
        weight_decay: Of AdamW.
        distillation: Share of the teacher's answers in the loss, 0 to 1; the rest is that of the
            classes.
        temperature: By which scores are divided before they are compared.
        patience: Training ends after so many epochs without a better score.
        seed: Of torch's random numbers, which are put back afterwards.

    >>> Recipe(epochs=0)
    Traceback (most recent call last):
    ...
    coinfer.errors.ConfigurationError: epochs 0 is out of range; give 1 or more
    """

    epochs: int = 30
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    distillation: float = 0.9
    temperature: float = 4.0
    patience: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            ConfigurationError: a number is out of range.
        """
        checks = {
            "epochs": (self.epochs >= 1, "1 or more"),
            "patience": (self.patience >= 1, "1 or more"),
            "learning_rate": (0 < self.learning_rate < float("inf"), "a number above 0"),
            "weight_decay": (self.weight_decay >= 0 and isfinite(self.weight_decay), "0 or more"),
            "distillation": (0 <= self.distillation <= 1, "0 to 1"),
            "temperature": (0 < self.temperature < float("inf"), "a number above 0"),
        }
        for name, (is_right, range_) in checks.items():
            if not is_right:
                value = getattr(self, name)
                raise ConfigurationError(f"{name} {value!r} is out of range; give {range_}")

    def to_json(self) -> dict[str, int | float]:
        """Return plain values."""
        return asdict(self)
