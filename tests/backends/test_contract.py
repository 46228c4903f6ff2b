"""Every backend keeps the contract that `coinfer.testing` ships."""

from __future__ import annotations

import pytest

from coinfer.backends import Backend, get_backend
from coinfer.machine.processor import Processor
from coinfer.testing.backend_suite import BackendSuite


def one_thread(backend: str, device: str) -> Processor:
    return Processor(name="one", backend=backend, device=device, units=frozenset({"core0"}))


class TestOnnxRuntime(BackendSuite):
    def backend(self) -> Backend:
        return get_backend("onnxruntime")

    def processor(self) -> Processor:
        return one_thread("onnxruntime", "CPU")


class TestOpenVino(BackendSuite):
    def backend(self) -> Backend:
        pytest.importorskip("openvino")
        return get_backend("openvino")

    def processor(self) -> Processor:
        return one_thread("openvino", "CPU")


class TestTorch(BackendSuite):
    def backend(self) -> Backend:
        pytest.importorskip("torch")
        return get_backend("torch")

    def processor(self) -> Processor:
        return one_thread("torch", "CPU")


class TestNull(BackendSuite):
    computes = False

    def backend(self) -> Backend:
        return get_backend("null")

    def processor(self) -> Processor:
        return one_thread("null", "NULL")
