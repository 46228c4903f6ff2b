"""Independent random generators from one seed. Adding a model changes no other model's numbers."""

from __future__ import annotations

import enum

import numpy as np

__all__ = ["Purpose", "generator"]


class Purpose(enum.IntEnum):
    """What random numbers are for. Never renumber: old results would change."""

    ARRIVALS = 1
    INPUTS = 2
    SERVICE = 3
    ORDER = 4
    TRIGGER = 5
    SIZES = 6
    DISTURBANCE = 7
    HANDOVER = 8
    SUBMISSION = 9


def generator(seed: int, purpose: Purpose, name: str) -> np.random.Generator:
    """Make the generator of one model for one purpose.

    >>> a = generator(0, Purpose.ARRIVALS, "resnet50").random()
    >>> a == generator(0, Purpose.ARRIVALS, "resnet50").random()
    True
    >>> a == generator(0, Purpose.INPUTS, "resnet50").random()
    False
    """
    key = (int(purpose), *name.encode())
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
