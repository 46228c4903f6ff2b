"""Threads of ONNX Runtime's pools have cores of their own, and so has the caller."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace

import psutil
import pytest

from coinfer.backends import get_backend
from coinfer.backends.base import caller_cores
from coinfer.backends.reused_sessions import reused_sessions
from coinfer.hardware.cores import available_cores
from coinfer.machine.processor import Processor
from coinfer.profiling.identity import key_parts
from coinfer.testing.models import tiny_conv
from coinfer.threads.pinning import can_pin

BACKEND = get_backend("onnxruntime")


def threads() -> set[int]:
    return {thread.id for thread in psutil.Process().threads()}


def wide(*cores: int, threads: int = 2, **fields: object) -> Processor:
    values: dict[str, object] = {
        "backend": "onnxruntime",
        "units": frozenset(f"core{core}" for core in cores),
        **fields,
    }
    return Processor(name="wide", cores=cores, threads=threads, **values)  # type: ignore[arg-type]


@pytest.mark.skipif(sys.platform != "linux", reason="threads are pinned on Linux only")
@pytest.mark.parametrize(
    ("processor", "cores"),
    [
        (wide(4, 6), (4,)),
        (wide(4, 5, 6, threads=3), (4,)),
        (wide(4, threads=1), (4,)),
        (wide(4, 5, 6, 7), (4, 5, 6, 7)),  # which two of the four is the system's to choose
        (wide(4, 4), (4, 4)),
        (wide(threads=2), ()),
        (wide(4, 5, device="CUDA:0"), (4, 5)),
        (wide(4, 5, options={"session.intra_op_thread_affinities": "7"}), (4, 5)),
    ],
)
def test_the_caller_has_the_first_core_where_each_pool_thread_has_another(
    processor: Processor, cores: tuple[int, ...]
) -> None:
    assert caller_cores(BACKEND, processor) == cores


def test_a_backend_that_places_no_threads_leaves_all_cores_to_the_caller() -> None:
    assert caller_cores(get_backend("null"), wide(4, 5, backend="null")) == (4, 5)


def test_a_backend_that_lasts_leaves_as_many_cores_as_the_one_that_it_keeps() -> None:
    with reused_sessions([wide(4, 6)]) as backends:
        assert caller_cores(backends["onnxruntime"], wide(4, 6)) == caller_cores(
            BACKEND, wide(4, 6)
        )


@pytest.mark.skipif(sys.platform != "linux", reason="threads are pinned on Linux only")
def test_what_is_pinned_is_part_of_what_a_measurement_depends_on() -> None:
    def parts(processor: Processor) -> dict[str, object]:
        return key_parts("m", tiny_conv().model, processor, 1, [], BACKEND, "machine")

    assert parts(wide(4, 6)) == parts(wide(2, 3))
    pinned, left, one = parts(wide(4, 6)), parts(wide(4, 5, 6)), parts(wide(4, threads=1))
    assert pinned != left
    assert parts(replace(wide(4, 6), cores=())) not in (pinned, left)
    assert parts(replace(wide(4, threads=1), cores=())) != one


def test_wide_processors_on_other_cores_have_pools_of_their_own() -> None:
    key = BACKEND.sharing_key
    assert key(wide(0, 1)) != key(wide(2, 3))


@pytest.mark.alone
@pytest.mark.skipif(sys.platform != "linux", reason="threads are pinned on Linux only")
def test_the_pool_runs_where_it_is_said_to() -> None:
    cores = available_cores()[:2]
    if len(cores) < 2 or not can_pin(cores):
        pytest.skip("needs two cores to which threads can be pinned")
    before = threads()
    session = BACKEND.load(tiny_conv().model, wide(*cores))
    try:
        fresh = threads() - before
        assert len(fresh) == 1
        until_s = time.monotonic() + 10  # a thread pins itself when it gets its turn
        while os.sched_getaffinity(*fresh) != {cores[1]} and time.monotonic() < until_s:
            time.sleep(0.01)
        assert os.sched_getaffinity(*fresh) == {cores[1]}
    finally:
        session.close()
