"""What is taken of a GPU's memory: one library says it, and sessions of others count as well."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from coinfer.backends.base import DeviceUse
from coinfer.backends.null import NullBackend
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.model import Model
from coinfer.runtime.model_store import ModelStore
from coinfer.testing.models import tiny_linear


class Knowing(NullBackend):
    """Says what is taken, of which its own sessions took 20."""

    def device_use(self, device: str) -> DeviceUse | None:
        if device == "CPU":
            return None
        return DeviceUse(held_bytes=20, kept_bytes=30, free_bytes=10, total_bytes=100)

    def load(self, model: Model, processor: Processor) -> Any:
        return SimpleNamespace(device_bytes=20, close=lambda: None)


class Silent(NullBackend):
    def load(self, model: Model, processor: Processor) -> Any:
        return SimpleNamespace(device_bytes=40, close=lambda: None)


def on(name: str, backend: str, device: str = "CUDA:0") -> Processor:
    return Processor(name=name, backend=backend, device=device, units=frozenset({name}))


def test_what_another_library_holds_of_a_gpu_is_not_somebody_elses() -> None:
    processors = [on("cuda0", "silent"), on("gpu0", "knowing"), on("cpu0", "silent", "CPU")]
    backends = {"knowing": Knowing(), "silent": Silent()}
    store = ModelStore({p.name: p for p in processors}, backends)
    assert store.device_uses()["CUDA:0"].usable_bytes == 40
    profile = Profile.from_seconds({"m": {p.name: 1.0 for p in processors}})
    store.put("m", tiny_linear().model, profile)
    use = DeviceUse(held_bytes=60, kept_bytes=70, free_bytes=10, total_bytes=100)
    assert store.device_uses() == {"CUDA:0": use}
    store.remove("m", close=True)
    assert store.device_uses()["CUDA:0"].held_bytes == 20
