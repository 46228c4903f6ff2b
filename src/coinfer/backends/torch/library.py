"""Import torch, if it is as new as what is used of it."""

from __future__ import annotations

import re

import torch
from torch.nn import functional

__all__ = ["OLDEST", "functional", "torch"]

OLDEST = (2, 9)
"""The first with `fp32_precision`, by which TensorFloat-32 is turned off."""

_found = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
if _found < OLDEST:
    raise ImportError(
        f"torch {torch.__version__} is older than {'.'.join(map(str, OLDEST))}", name="torch.old"
    )
