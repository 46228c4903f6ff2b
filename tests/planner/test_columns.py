"""Of many processors few are loaded: what the bound, a lone request or a failure needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from coinfer.bound import throughput_bound
from coinfer.hardware import default_processors, find_cores
from coinfer.machine.machine_file import load_machine
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.machine.scaling import Scaling
from coinfer.planner.columns import Demand, Room, few, has_widths
from coinfer.planner.useful import useful
from hardware import fake_machines as fakes

SCALINGS = {
    "small": Scaling(mean_s=0.004, serial=0.2),
    "middle": Scaling(mean_s=0.040, serial=0.08),
    "large": Scaling(mean_s=0.080, serial=0.04),
}
ROOM = Room()


def machine(
    fake: Callable[[Path], Path], threads: int, root: Path
) -> tuple[Sequence[Processor], Profile]:
    cores = find_cores(root=fake(root), affinity=range(threads))
    processors = default_processors(["onnxruntime", "openvino"], cores=cores)
    slower = {"openvino": 1.05, "onnxruntime": 1.0}
    table = {
        model: {
            p.name: scaling.seconds(p.threads, slower[p.backend] * (1.3 if p.spread else 1.0))
            for p in processors
        }
        for model, scaling in SCALINGS.items()
    }
    return processors, useful(Profile.from_seconds(table), processors)


@pytest.mark.parametrize(
    ("fake", "threads"),
    [(fakes.desktop, 32), (fakes.laptop, 20), (fakes.server, 64), (fakes.container, 8)],
)
def test_few_are_kept_and_the_bound_stays(
    fake: Callable[[Path], Path], threads: int, tmp_path: Path
) -> None:
    processors, profile = machine(fake, threads, tmp_path)
    columns = few(profile, processors, Demand(), room=ROOM)
    kept = profile.of_pairs({(m, p) for m, each in columns.items() for p in each.processors})
    mix = dict.fromkeys(SCALINGS, 1.0)
    best = throughput_bound(profile, processors, mix).throughput_per_s
    assert throughput_bound(kept, processors, mix).throughput_per_s >= 0.99 * best
    n_cores = len(find_cores(root=tmp_path, affinity=range(threads)).numbers)
    assert len(kept.entries) <= max(15, 4 * n_cores)
    for model in SCALINGS:
        fastest = min(e.mean_s for k, e in profile if k.model == model)
        assert min(e.mean_s for k, e in kept if k.model == model) == fastest


@pytest.mark.parametrize(("fake", "threads"), [(fakes.desktop, 32), (fakes.container, 8)])
def test_whichever_one_fails_another_is_left_on_other_units(
    fake: Callable[[Path], Path], threads: int, tmp_path: Path
) -> None:
    processors, profile = machine(fake, threads, tmp_path)
    units = {p.name: p.units for p in processors}
    for each in few(profile, processors, Demand(), room=ROOM).values():
        for name in each.processors:
            assert any(units[other] != units[name] for other in each.processors)


def test_a_deadline_that_one_core_misses_brings_a_width_that_meets_it(tmp_path: Path) -> None:
    processors, profile = machine(fakes.desktop, 32, tmp_path)
    columns = few(profile, processors, Demand(deadlines={"large": 0.025}), room=ROOM)
    threads = {p.name: p.threads for p in processors}
    assert "the bound keeps" in next(why for why in columns["large"].why if "cpu0-3 " in why)
    assert sum(threads[name] == 4 for name in columns["large"].processors) > 2
    assert "the bound keeps" in next(why for why in columns["small"].why if "cpu0 " in why)


def test_rates_decide_how_many_are_kept(tmp_path: Path) -> None:
    processors, profile = machine(fakes.server, 64, tmp_path)
    rare = few(profile, processors, Demand(rates={"large": 0.02}), room=ROOM)["large"]
    often = few(profile, processors, Demand(rates={"large": 10.0}), room=ROOM)["large"]
    assert len(rare.processors) < len(often.processors) / 3


def test_pools_fit_into_the_room(tmp_path: Path) -> None:
    processors, profile = machine(fakes.desktop, 32, tmp_path)
    threads = {p.name: p.threads for p in processors}
    for room in (64, 24, 0):
        columns = few(profile, processors, Demand(), room=Room(threads=room))
        pools = [threads[n] for each in columns.values() for n in each.processors if threads[n] > 1]
        assert sum(pools) <= room
        assert all(each.processors for each in columns.values())


def test_models_are_spread_over_caches(tmp_path: Path) -> None:
    processors, profile = machine(fakes.desktop, 32, tmp_path)
    units = {p.name: p.units for p in processors}
    columns = few(profile, processors, Demand(), room=Room(threads=60))
    wide = [n for each in columns.values() for n in each.processors if len(units[n]) == 8]
    assert len(set(wide)) == 2


def test_what_shares_a_session_with_a_kept_one_is_kept(tmp_path: Path) -> None:
    processors, profile = machine(fakes.desktop, 32, tmp_path)
    columns = few(
        profile, processors, Demand(), room=ROOM, session_of=lambda p: p.threads == 1 or p.name
    )
    singles = [p.name for p in processors if p.threads == 1 and p.backend == "onnxruntime"]
    for each in columns.values():
        assert set(singles) <= set(each.processors)


def test_pairs_that_are_asked_for_stay(tmp_path: Path) -> None:
    processors, profile = machine(fakes.desktop, 32, tmp_path)
    keep = {("small", "cpu14-15")} & {(k.model, k.processor) for k, _ in profile} or {
        ("small", "cpu15")
    }
    columns = few(profile, processors, Demand(), room=ROOM, keep=keep)
    assert {("small", name) for name in columns["small"].processors} >= keep


def test_the_reasons_name_what_is_kept_and_what_not(tmp_path: Path) -> None:
    processors, profile = machine(fakes.server, 64, tmp_path)
    large = few(profile, processors, Demand(), room=ROOM)["large"]
    assert any(why.startswith("cpu0 ... cpu63 (64): the bound keeps") for why in large.why)
    assert any("a lone request takes" in why for why in large.why)
    assert any("the fastest at 50% of the bound" in why for why in large.why)
    assert "neither the bound nor a lone request needs them" in dict(large.left).values()


def test_two_cores_have_no_widths_to_choose_among() -> None:
    two = [
        Processor(name=name, backend="b", units=frozenset(units), threads=len(units))
        for name, units in {"0": "a", "1": "b", "_all": "ab"}.items()
    ]
    assert not has_widths(two)


def test_where_the_load_is_known_the_widths_that_serve_it_best_are_loaded(tmp_path: Path) -> None:
    processors, profile = machine(fakes.desktop, 32, tmp_path)
    threads = {p.name: p.threads for p in processors}
    mix = dict.fromkeys(SCALINGS, 1.0)
    bound = throughput_bound(profile, processors, mix).throughput_per_s

    def widths(load: float, room: Room = ROOM) -> Counter[int]:
        rates = {model: load * bound / len(mix) for model in mix}
        demand = Demand(rates=rates, is_absolute=True)
        kept = few(profile, processors, demand, room=room)["large"].processors
        return Counter(threads[name] for name in kept)

    busy, idle = widths(0.95), widths(0.15)
    assert max(busy) < max(idle)
    assert busy[1] > sum(n for width, n in busy.items() if width > 2)
    # More than those that are busy on average, while there is room, and the room is kept.
    tight = widths(0.5, Room(threads=24))
    assert sum(widths(0.5).values()) > sum(tight.values())
    assert sum(width * n for width, n in tight.items() if width > 1) <= 24


def test_where_room_is_short_the_width_that_serves_best_is_filled_first() -> None:
    """A model of little work finds cores taken as often as others do: by the runs of these."""
    machine = load_machine("lib:cores-64")
    frames = {"squeezenet1_1": 30.0, "resnet50": 10.0, "densenet201": 8.0, "vgg16": 2.0}
    bound = throughput_bound(machine.profile, machine.processors, frames).per_model_per_s
    found = few(
        useful(machine.profile.restricted(frames), machine.processors),
        machine.processors,
        Demand(rates={m: rate / 2 for m, rate in bound.items()}, is_absolute=True),
        room=Room(threads=64 * len(frames)),
        session_of=lambda p: p.threads == 1 or p.name,
    )
    threads = {p.name: p.threads for p in machine.processors}
    fours = {
        model: sum(threads[name] == 4 for name in each.processors) for model, each in found.items()
    }
    assert min(fours.values()) >= 6, fours


def widths_of(cores: int, mix: dict[str, float], load: float, room: Room) -> dict[str, set[int]]:
    machine = load_machine(f"lib:cores-{cores}")
    bound = throughput_bound(machine.profile, machine.processors, mix).per_model_per_s
    found = few(
        useful(machine.profile.restricted(mix), machine.processors),
        machine.processors,
        Demand(rates={m: load * rate for m, rate in bound.items()}, is_absolute=True),
        room=room,
        session_of=lambda p: p.threads == 1 or p.name,
    )
    threads = {p.name: p.threads for p in machine.processors}
    return {model: {threads[n] for n in each.processors} for model, each in found.items()}


def test_where_all_of_the_best_width_are_often_taken_narrower_ones_are_there_too() -> None:
    """Else a request that finds both caches in use would get one core of the many that are free."""
    mix = {"mobilenet_v2": 1.0, "resnet50": 1.0, "resnet101": 1.0}
    found = widths_of(16, mix, 0.3, Room(threads=8 * 16))
    assert all({1, 2, 4, 8} <= row for row in found.values()), found
    tight = widths_of(16, mix, 0.3, Room(threads=48))
    assert all(8 in row for row in tight.values()), tight  # what serves best comes first


@pytest.mark.parametrize("load", [0.8, 0.84, 0.86, 0.88, 0.9])
def test_no_width_is_left_out_between_two_that_serve_best_at_nearby_loads(load: float) -> None:
    """One core at the load itself and four at 0.7 times that: two serve best in between."""
    mix = {"mobilenet_v2": 1.0, "resnet50": 1.0, "resnet101": 1.0}
    for model, row in widths_of(16, mix, load, Room(threads=8 * 16)).items():
        assert 2 in row or max(row) == 1, (model, row)


def test_a_rare_model_stays_on_few_processors_where_rates_are_known(tmp_path: Path) -> None:
    processors, profile = machine(fakes.desktop, 32, tmp_path)
    rates = {"small": 100.0, "middle": 40.0, "large": 0.05}
    found = few(profile, processors, Demand(rates=rates, is_absolute=True), room=ROOM)
    assert len(found["large"].processors) < len(found["middle"].processors) / 2


def test_the_widths_of_a_model_share_cores_where_there_is_room_for_some_of_each_only() -> None:
    """Its wide runs are then on a part of the machine, and others find cores free."""
    machine = load_machine("lib:cores-16")
    mix = {"mobilenet_v2": 1.0, "resnet50": 1.0, "resnet101": 1.0}
    bound = throughput_bound(machine.profile, machine.processors, mix).per_model_per_s
    found = few(
        useful(machine.profile.restricted(mix), machine.processors),
        machine.processors,
        Demand(rates={m: rate / 2 for m, rate in bound.items()}, is_absolute=True),
        room=Room(threads=12 * len(mix)),
        session_of=lambda p: p.threads == 1 or p.name,
    )
    processors = {p.name: p for p in machine.processors}
    for model, each in found.items():
        units: dict[int, set[str]] = {}
        for name in each.processors:
            units.setdefault(processors[name].threads, set()).update(processors[name].units)
        assert 0 < len(units[4]) < 16, (model, units)
        assert units[2] <= units[4], (model, units)
