"""The official suite, case by case, for any backend. Knows nothing of coinfer."""

from __future__ import annotations

import os
import unittest
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from onnx.backend.base import Backend, BackendRep

__all__ = ["Attempt", "Case", "cases"]

_DEVICE = "CPU"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What came of one case on one backend.

    Attributes:
        problem: Why it did not pass; empty if it passed.
        outputs: Outputs of each run, as far as it got.
        prepared: What the backend made of the model; None if it refused.
    """

    problem: str
    outputs: list[list[Any]]
    prepared: Any

    @property
    def passed(self) -> bool:
        return not self.problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One case of the suite: a model, inputs, and the outputs that the standard wants.

    Attributes:
        name: As the suite has it, without the device.
        category: `Node`, `PyTorchConverted`, `PyTorchOperator`, `Real` or `Simple`.
    """

    name: str
    category: str
    _run: Callable[[unittest.TestCase], None] = field(repr=False)
    _runner: Any = field(repr=False)

    def attempt(self, prepare: Callable[[Any], Any]) -> Attempt:
        """Run the case; the suite compares the outputs.

        Args:
            prepare: Makes of the model something with `run(inputs)`.
        """
        backend = _Listening(prepare)
        self._runner.backend = backend
        problem = ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._run(unittest.TestCase())
        except unittest.SkipTest as skip:
            problem = f"skipped: {skip}"
        except Exception as error:  # noqa: BLE001  # backends raise what they like
            problem = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return Attempt(problem=problem, outputs=backend.outputs, prepared=backend.prepared)


class _Listening:
    """Stands between the suite and a backend, and keeps what passes."""

    def __init__(self, prepare: Callable[[Any], Any]) -> None:
        self.outputs: list[list[Any]] = []
        self.prepared: Any = None
        self._prepare = prepare

    def prepare(self, model: Any, device: str, **options: Any) -> BackendRep:
        self.prepared = self._prepare(model)
        return self

    def run(self, inputs: list[Any], **options: Any) -> list[Any]:
        # Some cases give a numpy scalar where the model takes an array of no axes.
        arrays = [np.asarray(x) if isinstance(x, np.generic) else x for x in inputs]
        outputs = list(self.prepared.run(arrays))
        self.outputs.append(outputs)
        return outputs


class _OneDevice(Backend):
    """Stands in while the suite lists its cases: it asks which devices there are."""

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return device == _DEVICE


def cases(scratch: Path) -> tuple[Case, ...]:
    """Return all cases for the CPU, in the order of categories and names.

    Args:
        scratch: Folder where the suite puts the expected outputs of the real models.
    """
    os.environ["ONNX_MODELS"] = str(scratch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some overflow on purpose while they are made
        from onnx.backend.test import BackendTest

        runner = BackendTest(_OneDevice, __name__)
    suffix = f"_{_DEVICE.lower()}"
    return tuple(
        Case(
            name=name.removesuffix(suffix),
            category=category.removesuffix("Model"),
            _run=item.func,
            _runner=runner,
        )
        for category, items in sorted(runner._test_items.items())
        for name, item in sorted(items.items())
        if name.endswith(suffix)
    )
