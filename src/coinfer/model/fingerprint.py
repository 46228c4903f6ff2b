"""Fingerprint: the identity of a model as two digests. `canonical` computes them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ALGORITHM", "Fingerprint"]

ALGORITHM = 2
"""Version of how `canonical` computes them; raised when equal models would get other digests."""

_SHORT_DIGITS = 8


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Identity of a model, independent of its names and of how its file stores the weights.

    Two models of one architecture have equal `structure`; copies fine-tuned apart differ in
    `weights` only.

    Attributes:
        structure: Hex digest of operators, attributes, topology, specs and integer constants.
        weights: Hex digest of the weights, in the order in which the structure meets them.

    >>> Fingerprint("0123456789abcdef", "fedcba9876543210").short
    '01234567-fedcba98'
    """

    structure: str
    weights: str

    @property
    def full(self) -> str:
        """Both digests joined; usable as a file name and as a cache key."""
        return f"{self.structure}-{self.weights}"

    @property
    def short(self) -> str:
        """The first digits of both, for people."""
        return f"{self.structure[:_SHORT_DIGITS]}-{self.weights[:_SHORT_DIGITS]}"
