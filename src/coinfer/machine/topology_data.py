"""Topology as plain values and back: a row per group of equal cores. Opens no file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from coinfer.machine.topology import Core, Topology

__all__ = ["decode_topology", "encode_topology", "format_numbers", "parse_numbers"]

_MOST = 1 << 20
"""No system numbers its hardware threads higher; a longer range is a mistake."""


def encode_topology(topology: Topology) -> dict[str, Any]:
    """Return a topology as values that JSON and YAML have.

    >>> pair = Topology(cores=(Core(threads=(0, 2)), Core(threads=(1, 3))), used=(0, 1))
    >>> encode_topology(pair)["cores"]
    [{'threads': ['0-1', '2-3'], 'cache': 0, 'node': 0, 'kind': ''}]
    >>> decode_topology(encode_topology(pair)) == pair
    True
    """

    def alike(core: Core) -> tuple[int, int, str, int]:
        return core.cache, core.node, core.kind, len(core.threads)

    rows = []
    for (cache, node, kind, _), group in groupby(topology.cores, alike):
        threads = zip(*(core.threads for core in group), strict=True)
        numbers = [format_numbers(each) for each in threads]
        rows.append({"threads": numbers, "cache": cache, "node": node, "kind": kind})
    return {"cores": rows, "used": format_numbers(topology.used), "quota": topology.quota}


def decode_topology(data: Mapping[str, Any]) -> Topology:
    """Read what `encode_topology` made, or somebody wrote; all cores are used if none are named.

    Raises:
        ValueError: numbers that are none, or rows whose lists of threads differ in length.
        ConfigurationError: a thread is there twice, or a used one belongs to no core.
    """
    cores = []
    for row in data["cores"]:
        columns = [parse_numbers(text) for text in row["threads"]]
        if len({len(column) for column in columns}) != 1:
            raise ValueError(
                f"threads {row['threads']} are not equally many in each part; give one number per "
                "core in each"
            )
        shared = {name: row[name] for name in ("cache", "node", "kind") if name in row}
        cores += [Core(threads=threads, **shared) for threads in zip(*columns, strict=True)]
    used = parse_numbers(data.get("used") or "") or [core.threads[0] for core in cores]
    return Topology(cores=tuple(cores), used=tuple(used), quota=data.get("quota"))


def format_numbers(numbers: Iterable[int]) -> str:
    """Write numbers as Linux writes lists of processors, in their order.

    >>> format_numbers([0, 1, 2, 3, 8])
    '0-3,8'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(_run(run) for run in runs)


def _run(run: Sequence[int]) -> str:
    return str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}"


def parse_numbers(text: str) -> list[int]:
    """Read numbers as Linux writes lists of processors.

    Raises:
        ValueError: it is no such list.

    >>> parse_numbers("0-3,8"), parse_numbers("")
    ([0, 1, 2, 3, 8], [])
    """
    found: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, dash, last = part.partition("-")
        low, high = int(first), int(last if dash else first)
        if not 0 <= low <= high < _MOST:
            raise ValueError(f"{part!r} is no range of numbers")
        found += range(low, high + 1)
    return found
