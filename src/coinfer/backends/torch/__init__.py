"""Run models with torch, on a CPU or a GPU."""

from __future__ import annotations

from coinfer.backends.torch.backend import TorchBackend

__all__ = ["TorchBackend"]
