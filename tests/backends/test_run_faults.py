"""Of a run that failed, what the request brought is told from what the machine lacks."""

from __future__ import annotations

import errno
import os
from typing import Any

import numpy as np
import pytest

from coinfer.backends import get_backend
from coinfer.backends.onnxruntime import compiling
from coinfer.backends.onnxruntime.providers import CPU_PROVIDER
from coinfer.backends.run_faults import is_of_inputs
from coinfer.errors import ExecutionError, first_line
from coinfer.machine.processor import Processor
from coinfer.testing.models import tiny_conv


@pytest.mark.parametrize(
    "error",
    [MemoryError(), OSError(errno.EIO, os.strerror(errno.EIO)), RuntimeError("std::bad_alloc")],
    ids=repr,
)
def test_what_the_machine_lacks_is_no_fault_of_a_request(error: Exception) -> None:
    assert not is_of_inputs(first_line(error))


class Lost:
    """A session of a device that is gone."""

    def run(self, *_: Any) -> Any:
        raise RuntimeError("the device was removed")


@pytest.mark.parametrize("provider", [CPU_PROVIDER, "DmlExecutionProvider"])
def test_only_kernels_of_cpu_cores_refuse_inputs(
    provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "create", lambda *_: Lost())
    monkeypatch.setattr(compiling, "require_assigned", lambda *_: {})
    monkeypatch.setattr(compiling, "fallen_back", lambda *_: "")
    model = tiny_conv().model
    processor = Processor(name="p", backend="onnxruntime", units=frozenset({"u"}))
    common = get_backend("onnxruntime")._common(model, processor)  # type: ignore[attr-defined]
    session = compiling.compiled(model, processor, (provider, {}), {"what": "it", **common})
    with pytest.raises(ExecutionError) as failed:
        session.run({"x": np.zeros(1, np.float32)})
    assert failed.value.is_of_inputs == (provider == CPU_PROVIDER)
