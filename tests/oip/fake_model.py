"""A model and a state for the fake servers: what is asked, checked and answered, without a wire.

`fault` names the one thing that a fake does wrong; the honest ones have none.
"""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

NAME = "fake"
_FOLDER = Path("/dev/shm")
DTYPES = {"FP32": np.dtype("<f4"), "INT32": np.dtype("<i4"), "INT64": np.dtype("<i8")}
INPUTS = {"a": ("FP32", (-1, 4)), "b": ("INT32", (-1, 2))}
OUTPUTS = {"scaled": ("FP32", (-1, 4)), "total": ("INT64", (-1,))}
EXTENSIONS = (
    "binary_tensor_data",
    "model_configuration",
    "model_repository(unload_dependents)",
    "schedule_policy",
    "statistics",
    *(["system_shared_memory"] if _FOLDER.is_dir() else []),
)


class RefusedError(Exception):
    """A request that is answered with an error."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


class FakeModel:
    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.count = 0
        self.ns = 1
        self.regions: dict[str, tuple[str, int, int]] = {}
        self.lock = threading.Lock()

    def metadata(self) -> dict[str, Any]:
        def tensors(known: dict[str, tuple[str, tuple[int, ...]]]) -> list[dict[str, Any]]:
            return [{"name": n, "datatype": d, "shape": list(s)} for n, (d, s) in known.items()]

        platform = {} if self.fault == "no platform" else {"platform": "onnx_onnxv1"}
        return {
            "name": NAME,
            "versions": ["1"],
            **platform,
            "inputs": tensors(INPUTS),
            "outputs": tensors(OUTPUTS),
        }

    def config(self) -> dict[str, Any]:
        def tensors(known: dict[str, tuple[str, tuple[int, ...]]]) -> list[dict[str, Any]]:
            return [
                {"name": n, "data_type": f"TYPE_{d}", "dims": list(s[1:])}
                for n, (d, s) in known.items()
            ]

        inputs = tensors(INPUTS)[: 1 if self.fault == "config without an input" else None]
        return {"name": NAME, "max_batch_size": 8, "input": inputs, "output": tensors(OUTPUTS)}

    def statistics(self) -> list[dict[str, Any]]:
        success = {"count": self.count, "ns": self.ns}
        said = {"name": NAME, "version": "1", "last_inference": self.count}
        counts = {"inference_count": self.count, "execution_count": self.count}
        return [{**said, **counts, "inference_stats": {"success": success}}]

    def check_model(self, name: str, version: str = "") -> None:
        if name != NAME and self.fault != "unknown models are bad requests":
            raise RefusedError(f"unknown model {name!r}", 404)
        if name != NAME:
            raise RefusedError(f"unknown model {name!r}", 400)
        if version not in ("", "1"):
            raise RefusedError(f"unknown version {version!r}", 404)

    def check_shape(self, name: Any, datatype: Any, shape: Any) -> tuple[int, ...]:
        if name not in INPUTS:
            raise RefusedError(f"no input {name!r}")
        known, sizes = INPUTS[name]
        if datatype != known and self.fault != "any datatype":
            raise RefusedError(f"input {name!r} is {known}, not {datatype!r}")
        if not isinstance(shape, list) or not all(type(size) is int for size in shape):
            raise RefusedError(f"input {name!r}: shape {shape!r}")
        fits = len(shape) == len(sizes) and shape[1:] == list(sizes[1:]) and 0 <= shape[0] < 100
        if not fits and self.fault != "any shape":
            raise RefusedError(f"input {name!r}: shape {shape}")
        return tuple(shape)

    def from_raw(self, name: str, shape: tuple[int, ...], data: bytes) -> Array:
        dtype = DTYPES[INPUTS[name][0]]
        wanted = math.prod(shape) * dtype.itemsize
        if len(data) != wanted:
            raise RefusedError(f"input {name!r}: {len(data)} bytes, not {wanted}")
        return np.frombuffer(data, dtype).reshape(shape)

    def compute(self, arrays: dict[str, Array]) -> dict[str, Array]:
        if set(arrays) != set(INPUTS):
            raise RefusedError("the model has inputs a and b")
        a, b = arrays["a"], arrays["b"]
        with self.lock:
            self.count += 0 if self.fault == "statistics stand still" else len(a)
            self.ns += 1000
        total = b.sum(axis=1, dtype=np.int64)
        if self.fault == "rows of a batch are mixed":
            total = total[::-1]
            a = a[::-1]
        return {"scaled": (2 * a + total[:, None]).astype(np.float32), "total": total}

    def wanted(self, names: list[str]) -> list[str]:
        for name in names:
            if name not in OUTPUTS:
                raise RefusedError(f"no output {name!r}")
        return list(OUTPUTS) if not names or self.fault == "all outputs always" else names

    # shared memory

    def register(self, region: str, said: dict[str, Any]) -> None:
        key, offset, size = said["key"], said["offset"], said["byte_size"]
        if region in self.regions or offset < 0 or size < 1 or not key.strip("/") or ".." in key:
            raise RefusedError(f"region {region!r} cannot be registered")
        path = _FOLDER / key.strip("/")
        if not path.is_file() or offset + size > path.stat().st_size:
            raise RefusedError(f"{key!r} is no memory, or too small")
        self.regions[region] = (key.strip("/"), offset, size)

    def place(self, said: dict[str, Any]) -> tuple[str, int, int]:
        region, size = said.get("shared_memory_region"), said.get("shared_memory_byte_size")
        offset = said.get("shared_memory_offset", 0)
        if region not in self.regions or type(size) is not int or size < 0 or offset < 0:
            raise RefusedError(f"no such place: {said}")
        key, base, length = self.regions[region]
        if offset + size > length and self.fault != "regions without an end":
            raise RefusedError(f"{said} is not in the region")
        return key, base + offset, size

    def read(self, said: dict[str, Any]) -> bytes:
        key, start, size = self.place(said)
        return (_FOLDER / key).read_bytes()[start : start + size]

    def write(self, said: dict[str, Any], data: bytes) -> None:
        key, start, size = self.place(said)
        if len(data) > size:
            raise RefusedError(f"{len(data)} bytes do not fit in {size}")
        with (_FOLDER / key).open("r+b") as memory:
            memory.seek(start)
            memory.write(data)
