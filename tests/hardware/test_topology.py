"""Topology: what fakes of machines look like to discovery, how processors on them are named."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coinfer.backends import get_backend
from coinfer.backends.base import caller_cores
from coinfer.backends.onnxruntime import creation
from coinfer.backends.onnxruntime.creation import pool_cores
from coinfer.errors import ConfigurationError
from coinfer.hardware import Cores, default_processors, find_cores
from coinfer.hardware.topology import find_topology, mac_topology
from coinfer.machine.core_groups import core_groups
from coinfer.machine.processor import Processor
from coinfer.machine.topology import Core, Topology
from coinfer.machine.topology_data import decode_topology, encode_topology
from hardware import fake_machines as fakes

_THREADS = {
    fakes.desktop: 32,
    fakes.laptop: 20,
    fakes.server: 64,
    fakes.container: 8,
    fakes.phone: 8,
}


def cores_of(fake: Callable[[Path], Path], root: Path) -> Cores:
    return find_cores(root=fake(root), affinity=range(_THREADS[fake]))


def processors_of(fake: Callable[[Path], Path], root: Path) -> dict[str, Processor]:
    found = default_processors(["onnxruntime"], cores=cores_of(fake, root))
    return {processor.name: processor for processor in found}


def test_a_desktop_has_two_caches_of_eight_cores(tmp_path: Path) -> None:
    found = cores_of(fakes.desktop, tmp_path)
    topology = found.topology
    assert topology is not None
    assert (found.numbers, found.physical, found.allowed) == (tuple(range(16)), 16, 32)
    assert topology.core_of(20) == Core(threads=(4, 20), cache=0)
    assert (topology.caches, topology.nodes, topology.kinds) == ((0, 8), (0,), ("",))


def test_a_laptop_has_two_kinds_of_cores(tmp_path: Path) -> None:
    topology = find_topology(root=fakes.laptop(tmp_path), affinity=range(20))
    assert topology.used == (0, 2, 4, 6, 8, 10, *range(12, 20))
    kinds = Counter(core.kind for core in topology.cores)
    assert kinds == {"performance": 6, "efficiency": 8}


def test_a_server_keeps_the_cores_of_a_node_together(tmp_path: Path) -> None:
    topology = find_topology(root=fakes.server(tmp_path), affinity=range(64))
    assert topology.used == (*range(0, 64, 2), *range(1, 64, 2))
    assert topology.nodes == (0, 1)


def test_a_quota_leaves_the_first_cores_unpinned_and_says_nothing_of_what_they_share(
    tmp_path: Path,
) -> None:
    found = cores_of(fakes.container, tmp_path)
    assert (found.numbers, found.quota, found.pinnable) == ((0, 1, 2), 3.5, False)
    assert found.layout == Topology.flat([0, 1, 2])


def test_capacities_tell_kinds_of_cores(tmp_path: Path) -> None:
    topology = find_topology(root=fakes.phone(tmp_path), affinity=range(8))
    assert topology.kinds == ("performance", "middle", "efficiency")
    assert topology.used == (7, 4, 5, 6, 0, 1, 2, 3)


def test_affinity_leaves_a_core_through_whichever_of_its_threads_is_allowed(tmp_path: Path) -> None:
    topology = find_topology(root=fakes.desktop(tmp_path), affinity={17, 2, 9})
    assert topology.used == (17, 2, 9)
    assert len(topology.cores) == 16


def test_widths_of_a_desktop_lie_inside_of_its_caches(tmp_path: Path) -> None:
    found = processors_of(fakes.desktop, tmp_path)
    by_width = Counter(p.threads for p in found.values())
    assert by_width == {1: 16, 2: 8, 4: 4, 8: 2, 16: 1}
    assert found["cpu8-11"].cores == (8, 9, 10, 11)
    assert (found["cpu8-15"].spread, found["cpu_all"].spread) == ("", "2 caches")
    assert found["cpu0-7"].likeness == found["cpu8-15"].likeness


def test_widths_of_a_laptop_are_of_one_kind_each(tmp_path: Path) -> None:
    found = processors_of(fakes.laptop, tmp_path)
    assert found["cpu0-5"].cores == (0, 2, 4, 6, 8, 10)
    assert found["cpu0-5"].spread == "performance"
    assert found["cpu6-9"].cores == (12, 13, 14, 15)
    assert found["cpu6-13"].spread == found["cpu6"].spread == "efficiency"
    assert found["cpu_all"].spread == "efficiency, performance"
    assert found["cpu0"].likeness != found["cpu6"].likeness
    assert "cpu4-7" not in found
    assert Counter(p.threads for p in found.values()) == {1: 14, 2: 7, 4: 3, 6: 1, 8: 1, 14: 1}


def test_widths_of_a_server_lie_inside_of_its_nodes(tmp_path: Path) -> None:
    found = processors_of(fakes.server, tmp_path)
    assert len(found) == 127
    assert found["cpu32-63"].cores == tuple(range(1, 64, 2))
    assert found["cpu_all"].spread == "2 nodes"
    assert len({p.likeness for p in found.values()}) == 7


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux pins")
def test_the_pool_of_a_wide_session_stays_inside_of_its_cache(tmp_path: Path) -> None:
    found = processors_of(fakes.desktop, tmp_path)
    assert pool_cores(found["cpu8-11"]) == (9, 10, 11)
    assert pool_cores(found["cpu8-15"]) == tuple(range(9, 16))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux pins")
def test_the_pool_of_a_wide_session_stays_on_one_kind_of_core(tmp_path: Path) -> None:
    found = processors_of(fakes.laptop, tmp_path)
    assert pool_cores(found["cpu0-5"]) == (2, 4, 6, 8, 10)
    assert pool_cores(found["cpu6-9"]) == (13, 14, 15)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux pins")
def test_a_session_of_one_node_is_made_and_run_by_threads_of_that_node_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed: list[tuple[int, ...]] = []

    @contextmanager
    def noted(cores: Collection[int]) -> Iterator[None]:
        placed.append(tuple(cores))
        yield

    class Made:
        def __init__(self, *_: object, **__: object) -> None: ...

    monkeypatch.setattr(creation, "placed_on", noted)
    monkeypatch.setattr(creation.ort, "InferenceSession", Made)
    backend = get_backend("onnxruntime")
    nodes = (set(range(0, 64, 2)), set(range(1, 64, 2)))
    for processor in processors_of(fakes.server, tmp_path).values():
        if processor.threads == 1 or processor.spread:
            continue
        creation.create(b"", processor, ("CPUExecutionProvider", {}), creation.Style())
        threads = {*caller_cores(backend, processor), *pool_cores(processor)}
        assert len(threads) == processor.threads
        assert any(threads <= node for node in nodes)
        assert set(placed.pop()) == threads


def test_widths_of_a_container_are_not_pinned(tmp_path: Path) -> None:
    found = processors_of(fakes.container, tmp_path)
    assert list(found) == ["cpu0", "cpu1", "cpu2", "cpu0-1", "cpu_all"]
    assert not any(p.cores or p.spread for p in found.values())
    assert not any(pool_cores(p) for p in found.values())


def test_two_cores_have_the_processors_that_they_always_had() -> None:
    groups = core_groups(Topology.flat([0, 1]))
    assert [(g.name, g.numbers) for g in groups] == [("0", (0,)), ("1", (1,)), ("_all", (0, 1))]


def test_every_group_has_cores_of_its_own_number_and_a_name_of_its_own(tmp_path: Path) -> None:
    for at, fake in enumerate(_THREADS):
        folder = tmp_path / str(at)
        groups = core_groups(cores_of(fake, folder).layout)
        assert len({g.name for g in groups}) == len({g.numbers for g in groups}) == len(groups)


@pytest.mark.parametrize("fake", _THREADS)
def test_a_topology_survives_being_written(fake: Callable[[Path], Path], tmp_path: Path) -> None:
    topology = cores_of(fake, tmp_path).topology
    assert topology is not None
    assert decode_topology(encode_topology(topology)) == topology


def test_damaged_files_leave_cores_that_share_everything(tmp_path: Path) -> None:
    root = fakes.desktop(tmp_path)
    for path in root.rglob("*"):
        if path.is_file():
            path.write_bytes(b"\xff9-\n2--1,,x")
    assert find_topology(root=root, affinity=range(3)) == Topology.flat(range(3))


def test_a_topology_refuses_what_contradicts_itself() -> None:
    with pytest.raises(ConfigurationError, match="twice"):
        Topology(cores=(Core(threads=(0,)), Core(threads=(0,))), used=())
    with pytest.raises(ConfigurationError, match="no core has"):
        Topology(cores=(Core(threads=(0,)),), used=(1,))


def test_cores_are_near_by_what_they_share() -> None:
    topology = Topology(
        cores=tuple(Core(threads=(n,), cache=n // 2, node=n // 4) for n in range(8)),
        used=tuple(range(8)),
    )
    assert topology.between([0], [1]) == "cache"
    assert topology.between([0], [2, 3]) == "node"
    assert topology.between([0, 1], [6]) == "machine"


def test_a_mac_with_one_level_is_flat() -> None:
    assert mac_topology(lambda _: "", [0, 1]) == Topology.flat([0, 1])
