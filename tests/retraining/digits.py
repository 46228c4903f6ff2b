"""A small convolutional network and the digits of scikit-learn. Needs torch and scikit-learn."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="retraining needs torch")
datasets = pytest.importorskip("sklearn.datasets", reason="digits ship with scikit-learn")


def network(*, seed: int = 0) -> Any:
    nn = torch.nn
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(512, 10),
        )


@cache
def digits() -> tuple[Any, Any]:
    """Pictures (1797, 1, 8, 8) from 0 to 1, and classes, in an order that is drawn once."""
    found = datasets.load_digits()
    order = torch.randperm(len(found.target), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16
    return images[order], torch.tensor(found.target)[order]


def batches(first: int, last: int, *, shuffle: bool = False, size: int = 64) -> Any:
    images, classes = digits()
    data = torch.utils.data.TensorDataset(images[first:last], classes[first:last])
    generator = torch.Generator().manual_seed(1) if shuffle else None
    return torch.utils.data.DataLoader(data, size, shuffle=shuffle, generator=generator)
