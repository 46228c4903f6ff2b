"""Cases of system shared memory, over HTTP and gRPC. The server must be on this machine."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.shared_memory import SharedMemory
from typing import Any
from uuid import uuid4

from coinfer.testing.oip.infer import Body, Infer, expect_reference, infer, reference
from coinfer.testing.oip.target import Target, expect_error
from coinfer.testing.oip.tensors import Array, from_raw, to_raw
from coinfer.testing.oip.verdict import expect, not_offered

__all__ = ["MEMORY_CASES", "is_here"]

_PATH = "/v2/systemsharedmemory"


def is_here(host: str) -> bool:
    """Tell whether a host is this machine, by its name alone.

    >>> is_here("127.0.0.1"), is_here("10.0.0.1")
    (True, False)
    """
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


@contextmanager
def _region(target: Target, size: int, beyond: int = 0) -> Iterator[tuple[memoryview, str]]:
    """Make memory and register all but what is `beyond`; both are gone afterwards."""
    target.needs("system_shared_memory")
    if not is_here(target.http.host):
        not_offered(f"{target.http.host} is another machine")
    name = f"coinfer-oip-{uuid4().hex[:12]}"
    memory = SharedMemory(name=name, create=True, size=size + beyond)
    try:
        said = {"key": f"/{name}", "offset": 0, "byte_size": size}
        answer = target.http.post(f"{_PATH}/region/{name}/register", said)
        expect(answer.status == 200, f"{answer.asked}: {answer.status}: {answer.body[:160]!r}")
        try:
            assert memory.buf is not None
            yield memory.buf, name
        finally:
            target.http.post(f"{_PATH}/region/{name}/unregister", {})
    finally:
        memory.close()
        memory.unlink()


def _layout(arrays: Mapping[str, Array], base: int) -> tuple[dict[str, tuple[int, int]], int]:
    """Return offset and size of each array behind the base, and the end."""
    places = {}
    for name, array in arrays.items():
        size = len(to_raw(array))
        places[name] = (base, size)
        base += size
    return places, base


def _where(region: str, offset: int, size: int) -> dict[str, Any]:
    said: dict[str, Any] = {"shared_memory_region": region, "shared_memory_byte_size": size}
    return {**said, "shared_memory_offset": offset} if offset else said


def inputs_and_outputs_in_shared_memory(target: Target) -> None:
    """Inputs are read from a region and outputs written into it."""
    arrays, answers = target.arrays(), reference(target)
    ins, end = _layout(arrays, 0)
    outs, end = _layout(answers, end)
    with _region(target, end) as (memory, region):
        for name, (start, size) in ins.items():
            memory[start : start + size] = to_raw(arrays[name])
        body = Infer().body(target, {})
        datatypes = target.datatypes()
        body.head["inputs"] = [
            {
                "name": name,
                "datatype": datatypes[name],
                "shape": list(arrays[name].shape),
                "parameters": _where(region, *place),
            }
            for name, place in ins.items()
        ]
        body.head["outputs"] = [
            {"name": name, "parameters": _where(region, *place)} for name, place in outs.items()
        ]
        said = body.send(target).object()
        for each in said["outputs"]:
            expect("data" not in each, f"output {each['name']!r} is in the answer, too")
            given = each.get("parameters", {})
            expect(given.get("shared_memory_region") == region, f"output said to be in {given}")
        known = {meta.name: meta for meta in target.metadata.outputs}
        found = {
            name: from_raw(
                name,
                known[name].datatype,
                answers[name].shape,
                bytes(memory[start : start + size]),
            )
            for name, (start, size) in outs.items()
        }
        expect_reference(target, found)


def regions_are_listed(target: Target) -> None:
    """A registered region has a status, one that was unregistered has none."""
    with _region(target, 64) as (_, region):
        listed = target.http.get(f"{_PATH}/status").json()
        expect(isinstance(listed, list), "the status is no list of regions")
        mine = [each for each in listed if each.get("name") == region]
        expect(len(mine) == 1 and mine[0].get("byte_size") == 64, f"the region is listed as {mine}")
        answer = target.http.get(f"{_PATH}/region/{region}/status")
        expect(answer.status == 200, f"{answer.asked}: status {answer.status}")
        again = {"key": f"/{region}", "offset": 0, "byte_size": 64}
        expect_error(target.http.post(f"{_PATH}/region/{region}/register", again), 400, 409)
    listed = target.http.get(f"{_PATH}/status").json()
    expect(not [each for each in listed if each.get("name") == region], "it is still listed")


def _reads(target: Target, said: dict[str, Any]) -> Body:
    """Write a request that reads its first input there."""
    body = Infer(binary=None).body(target)
    tensor = body.head["inputs"][0]
    body.tail = body.tail[tensor.get("parameters", {}).get("binary_data_size", 0) :]
    tensor.pop("data", None)
    tensor["parameters"] = said
    return body


def _writes(target: Target, said: dict[str, Any]) -> Body:
    """Write a request that wants its first output there."""
    body = Infer(binary=None).body(target)
    body.head["outputs"] = [{"name": target.metadata.outputs[0].name, "parameters": said}]
    return body


def regions_have_bounds(target: Target) -> None:
    """What is outside of a region, or in none, is refused."""
    if not target.metadata.inputs:
        not_offered("the model has no inputs")
    first = next(iter(target.arrays().values()))
    output = target.metadata.outputs[0].name
    sizes = (len(to_raw(first)), len(to_raw(reference(target)[output])))
    most = max(sizes)
    with _region(target, most, beyond=most + 8) as (_, region):
        for size, asks in zip(sizes, (_reads, _writes), strict=True):
            for said in (
                _where(region, most, size),
                _where(region, most - size + 1, size),
                _where(region, 2**63, size),
                _where(region, -1, size),
                _where("no-such-region", 0, size),
                _where(region, 0, -size),
                _where(region, 0, size - 1),
            ):
                expect_error(asks(target, said).send(target), 400, 404, 413)
    how = Infer(binary=None, parameters={"binary_data_output": True})
    expect_reference(target, infer(target, how).outputs)


def memory_that_is_none_is_refused(target: Target) -> None:
    """Keys that do not exist, leave the folder of shared memory, or are too small are refused."""
    target.needs("system_shared_memory")
    if not is_here(target.http.host):
        not_offered(f"{target.http.host} is another machine")
    for key, size in (
        (f"/no-such-{uuid4().hex}", 64),
        ("/../../etc/hostname", 8),
        ("/", 8),
        ("", 8),
    ):
        region = f"coinfer-oip-{uuid4().hex[:12]}"
        said = {"key": key, "offset": 0, "byte_size": size}
        expect_error(target.http.post(f"{_PATH}/region/{region}/register", said), 400, 403, 404)
    with _region(target, 64) as (_, region):
        for offset, size in ((0, 1 << 40), (1 << 40, 64), (-1, 64), (0, -1)):
            said = {"key": f"/{region}", "offset": offset, "byte_size": size}
            other = f"{region}-2"
            expect_error(target.http.post(f"{_PATH}/region/{other}/register", said), 400)


MEMORY_CASES = (
    inputs_and_outputs_in_shared_memory,
    regions_are_listed,
    regions_have_bounds,
    memory_that_is_none_is_refused,
)
"""Cases that run for each model."""
