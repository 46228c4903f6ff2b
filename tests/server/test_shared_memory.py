"""Shared memory belongs to clients: what they do with it must not harm the server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from coinfer.errors import CoinferError, InputError, TooLargeError
from coinfer.server.shared_memory import IS_OFFERED, SharedMemory

pytestmark = pytest.mark.skipif(not IS_OFFERED, reason="shared memory is offered on Linux only")

PLACE = {"shared_memory_region": "r", "shared_memory_byte_size": 16}


@pytest.fixture
def file() -> Iterator[Path]:
    path = Path("/dev/shm") / f"coinfer-test-{uuid4().hex}"
    path.write_bytes(np.arange(8192, dtype=np.float32).tobytes())
    yield path
    path.unlink(missing_ok=True)


def n_open() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


@pytest.fixture
def memory(file: Path) -> SharedMemory:
    memory = SharedMemory(most_bytes=1 << 14)
    memory.register("r", file.name, 0, 32_768)
    return memory


def test_a_region_that_was_shortened_ends_no_process(memory: SharedMemory, file: Path) -> None:
    os.truncate(file, 4096)
    late = {**PLACE, "shared_memory_offset": 16_384}
    with pytest.raises(InputError, match="shortened"):
        memory.read("x", "FP32", (4,), late)
    with pytest.raises(InputError, match="shortened"):
        memory.write("y", np.ones(4, np.float32), late)
    assert file.stat().st_size == 4096
    assert memory.read("x", "FP32", (4,), PLACE).tolist() == [0, 1, 2, 3]


def test_an_input_is_not_changed_by_its_client_afterwards(memory: SharedMemory, file: Path) -> None:
    array = memory.read("x", "FP32", (4,), PLACE)
    file.write_bytes(bytes(32_768))
    assert array.tolist() == [0, 1, 2, 3]


def test_a_place_larger_than_a_request_may_be_is_not_read(memory: SharedMemory) -> None:
    with pytest.raises(TooLargeError, match="at most 16384"):
        memory.read("x", "FP32", (8192,), {**PLACE, "shared_memory_byte_size": 32_768})
    with pytest.raises(InputError, match="takes 4611686018427387904"):
        memory.read("x", "FP32", (2**60,), PLACE)


@pytest.mark.parametrize(
    "key", ["", "/", "..", "../etc/passwd", "/../etc/passwd", "a/b", "a\0b", "./a", None, 7]
)
def test_keys_stay_in_the_shared_memory(key: object) -> None:
    with pytest.raises(InputError):
        SharedMemory().register("r", key, 0, 1)


@pytest.mark.parametrize(
    ("offset", "size"), [(0, 32_769), (32_768, 1), (2**61, 2**61), (-1, 4), (0, 0), (0, 2**64)]
)
def test_regions_are_within_what_is_there(file: Path, offset: int, size: int) -> None:
    with pytest.raises(CoinferError):
        SharedMemory().register("r", file.name, offset, size)


def test_regions_that_are_forgotten_keep_no_file_open(file: Path) -> None:
    before, memory = n_open(), SharedMemory()
    for number in range(20):
        memory.register(f"r{number}", file.name, 0, 16)
    with pytest.raises(InputError):
        memory.register("more", file.name, 0, 2**40)
    assert n_open() == before + 20
    memory.unregister("r3")
    memory.unregister()
    assert n_open() == before
