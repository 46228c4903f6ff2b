"""Digits: a convolutional network and the data that it learns, which ships with scikit-learn.

Needs torch and scikit-learn.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from sklearn.datasets import load_digits

__all__ = ["Digits", "network"]


class Digits(NamedTuple):
    """Pictures (n, 1, 8, 8) from 0 to 1 with their classes, as batches.

    Attributes:
        training: 1000 of them, shuffled anew each epoch.
        validation: 300, which decide when training ends and which weights are kept.
        test: 497, which decide nothing.
        images: All.
    """

    training: Any
    validation: Any
    test: Any
    images: Any

    @classmethod
    def load(cls, seed: int) -> Digits:
        """Draw which are which."""
        found = load_digits()
        draw = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(found.target), generator=draw)
        images = torch.tensor(found.images, dtype=torch.float32)[order, None] / 16
        classes = torch.tensor(found.target)[order]

        def batches(first: int, last: int, *, shuffle: bool = False) -> Any:
            data = torch.utils.data.TensorDataset(images[first:last], classes[first:last])
            generator = torch.Generator().manual_seed(seed) if shuffle else None
            return torch.utils.data.DataLoader(data, 64, shuffle=shuffle, generator=generator)

        return cls(batches(0, 1000, shuffle=True), batches(1000, 1300), batches(1300, 1797), images)


def network(seed: int) -> Any:
    """Return a network of five convolutions and one dense layer."""
    nn = torch.nn

    def block(inputs: int, outputs: int, stride: int = 1) -> list[Any]:
        convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]

    torch.manual_seed(seed)
    return nn.Sequential(
        *block(1, 32),
        *block(32, 64),
        *block(64, 64, 2),
        *block(64, 128),
        *block(128, 128, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, 10),
    )
