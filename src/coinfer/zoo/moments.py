"""Moments: the expected mean and variance of activations, followed through a network.

The zoo picks its random weights from these so that signals neither vanish nor explode with depth.
Knows arithmetic only: no tensors, no operators.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

__all__ = ["Moments"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Mean and variance of one element of a tensor, over inputs, positions and channels.

    Elements are treated as independent and Gaussian. That is wrong in detail (neighbouring pixels
    agree, rectified values are skewed) and good enough to keep a hundred layers within a small
    factor of unit variance.
    """

    mean: float = 0.0
    variance: float = 1.0

    @property
    def power(self) -> float:
        """Second moment, `mean**2 + variance`."""
        return self.mean**2 + self.variance

    def rectified(self) -> Self:
        """Moments after `max(x, 0)`; also used for ReLU6 and Gelu, which differ by little.

        >>> Moments().rectified().mean == 1 / math.sqrt(2 * math.pi)
        True
        """
        deviation = math.sqrt(self.variance)
        ratio = self.mean / deviation
        density = math.exp(-(ratio**2) / 2) / math.sqrt(2 * math.pi)
        below = (1 + math.erf(ratio / math.sqrt(2))) / 2
        mean = self.mean * below + deviation * density
        power = self.power * below + self.mean * deviation * density
        return type(self)(mean=mean, variance=power - mean**2)

    def plus(self, other: Moments) -> Self:
        """Moments of the sum of two independent tensors."""
        return type(self)(mean=self.mean + other.mean, variance=self.variance + other.variance)

    def times(self, other: Moments) -> Self:
        """Moments of the product of two independent tensors.

        >>> Moments(mean=2.0, variance=0.5).times(Moments(mean=3.0, variance=0.0))
        Moments(mean=6.0, variance=4.5)
        """
        mean = self.mean * other.mean
        return type(self)(mean=mean, variance=self.power * other.power - mean**2)

    def averaged(self, count: int) -> Self:
        """Moments of the mean over `count` neighbours.

        Neighbouring activations resemble each other, so about one in four counts as independent;
        channels differ in their means, which is about a tenth of the variance and stays.
        """
        return type(self)(mean=self.mean, variance=self.variance * min(1.0, 4 / count + 0.1))

    def maximum(self, count: int) -> Self:
        """Moments of the largest of `count` rectified neighbours.

        The largest of several rectified Gaussians has about the variance of one; only the mean
        moves, by about `sqrt(ln(count))` deviations.
        """
        lift = math.sqrt(self.variance * math.log(count))
        return type(self)(mean=self.mean + lift, variance=self.variance)

    @classmethod
    def mixed(cls, parts: Sequence[tuple[Moments, int]]) -> Self:
        """Moments of a concatenation of tensors with so many channels each."""
        total = sum(channels for _, channels in parts)
        return cls(
            mean=sum(part.mean * channels for part, channels in parts) / total,
            variance=sum(part.variance * channels for part, channels in parts) / total,
        )
