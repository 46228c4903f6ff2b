"""Where memory is missing, the reason says which model it was and what it takes; others go on."""

from __future__ import annotations

import pytest

from coinfer.backends.base import Session
from coinfer.backends.null import NullBackend
from coinfer.errors import BackendError
from coinfer.machine.processor import Processor
from coinfer.model import Model
from coinfer.profiling import Effort, Skip, profile_models
from coinfer.testing.models import tiny_conv, tiny_linear

CPU = Processor(name="cpu", backend="null", units=frozenset({"core0"}))


def wrapped() -> BackendError:
    error = BackendError("model 'big' on processor 'cpu': onnxruntime cannot compile it")
    error.__cause__ = RuntimeError("Exception during initialization: std::bad_alloc")
    return error


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("std::bad_alloc"), wrapped()], ids=lambda e: repr(e)[:12]
)
def test_it_says_what_is_needed_and_goes_on(error: Exception) -> None:
    class Small(NullBackend):
        def load(self, model: Model, processor: Processor) -> Session:
            if model.name == "big":
                raise error
            return super().load(model, processor)

    models = {"big": tiny_conv().model.renamed("big"), "small": tiny_linear().model}
    skips: list[Skip] = []
    measured = profile_models(
        models,
        [CPU],
        effort=Effort(max_runs=2),
        backends={"null": Small()},
        skipped=skips.append,
    )
    assert measured.models() == ("small",)
    [skip] = skips
    assert "model 'big' on processor 'cpu'" in skip.reason
    assert "out of memory: its weights alone take " in skip.reason
