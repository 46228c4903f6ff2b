"""What is believed of memory is held against what the system says, and follows a lowered limit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from coinfer import Engine
from coinfer.backends.base import DeviceUse, Session
from coinfer.backends.null import NullBackend, NullSession
from coinfer.core.commands import Evict, Load
from coinfer.core.events import MemoryGiven, MemoryMeasured
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.machine.span import Span
from coinfer.metrics.memory_track import ProcessMemory
from coinfer.model import Model
from coinfer.runtime import clock, engine_memory, memory_watch, model_store
from coinfer.runtime.engine_stats import MemoryStats
from coinfer.runtime.engine_warnings import EngineWarnings
from coinfer.runtime.memory_watch import MemoryWatch
from runtime.engines import MODEL

MIB = 2**20
CPU = Processor(name="cpu", backend="null", units=frozenset({"core0"}))
GPU = Processor(name="gpu", backend="null", device="GPU", units=frozenset({"gpu"}))
LOAD = Load(3, "m", Span(), ("cpu",), 0.1, 100 * MIB)
EVICT = Evict("m", 3, Span(), ("cpu",))


class Watched:
    """A watch whose process, clock and limit are told what they are."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, limit: int | None = 1024 * MIB) -> None:
        self.held: ProcessMemory | None = ProcessMemory(10 * MIB, 20 * MIB)
        self.now, self.limit = 0.0, limit
        self.uses: dict[str, DeviceUse] = {}
        self.events: list[MemoryGiven | MemoryMeasured] = []
        self.warnings = EngineWarnings()
        monkeypatch.setattr(memory_watch, "process_memory", lambda: self.held)
        monkeypatch.setattr(clock, "now", lambda: self.now)
        self.follow({"host": 600 * MIB})

    def follow(self, budgets: dict[str, float]) -> None:
        """Watch memories with these budgets."""
        self.watch = MemoryWatch(
            MemoryGiven(budgets, "lru", 7),
            [CPU, GPU],
            lambda _: 200 * MIB,
            lambda: self.limit,
            self.events.append,
            self.warnings,
            lambda: self.uses,
        )

    def evict(self, gave: int, evict: Evict = EVICT) -> list[int]:
        """Let an eviction give back so many MiB; return the sizes that the core is told."""
        self.events.clear()
        self.watch.note_eviction(evict, gave * MIB + 9, 9)
        return [e.size_bytes // MIB for e in self.events if isinstance(e, MemoryMeasured)]

    def look(self, limit: int | None) -> list[MemoryGiven]:
        """Lower or raise the limit; return the budgets that the core is told."""
        self.events.clear()
        self.now += 1.0
        self.limit = limit
        self.watch.look()
        return [event for event in self.events if isinstance(event, MemoryGiven)]


def asked_in_turn(backend: NullBackend, other: Model) -> MemoryStats:
    """Ask two models in turn of which one has room, and return what an engine says of it."""
    entry = Measurement(seconds=(1e-4,), load_s=1e-4, resident_bytes=100)
    profile = Profile({ProfileKey(name, "cpu"): entry for name in "ab"})
    with Engine(
        {"a": MODEL, "b": other},
        processors=[CPU],
        profile=profile,
        backends={"null": backend},
        memory=150,
    ) as engine:
        for name in "abab":
            engine.infer(name, MODEL.sample_inputs(), timeout_s=20)
        return engine.stats().memory


@pytest.mark.parametrize("budget", [150, 1000], ids=["tight", "ample"])
def test_memory_is_watched_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    order: list[str] = []

    class Backend(NullBackend):
        def load(self, model: Model, processor: Processor) -> Session:
            order.append("load")
            return super().load(model, processor)

    def process() -> ProcessMemory:
        order.append("watch")
        return ProcessMemory(10, 20)

    monkeypatch.setattr(memory_watch, "process_memory", process)
    entry = Measurement(seconds=(1e-4,), load_s=1e-4, resident_bytes=100)
    profile = Profile({ProfileKey(name, "cpu"): entry for name in "ab"})
    with Engine(
        {"a": MODEL, "b": MODEL},
        processors=[CPU],
        profile=profile,
        backends={"null": Backend()},
        memory=budget,
    ):
        assert order[0] == "watch"
        assert "load" in order


def test_a_limit_that_is_lowered_while_models_are_loaded_is_kept(watched: Watched) -> None:
    """What the engine tells the core once it knows all models is what memories have by then."""
    assert watched.watch.given.budgets == {"host": 600 * MIB}
    watched.look(500 * MIB)
    assert watched.watch.given.budgets == {"host": 400 * MIB}


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


def test_a_place_counts_with_what_two_evictions_in_a_row_gave_back(watched: Watched) -> None:
    watched.watch.note_load(LOAD)
    assert watched.evict(150) == [], "somebody else may have freed that"
    assert watched.evict(140) == [140]
    assert watched.watch.corrected_bytes == 40 * MIB
    watched.watch.note_load(LOAD._replace(size_bytes=140 * MIB))
    assert watched.evict(141) == []
    assert watched.evict(120) == [120]
    assert watched.evict(101) == [100], "no more than noise beyond the plan"
    assert watched.watch.corrected_bytes == 0


def test_a_place_never_counts_with_less_than_was_planned_nor_more_than_there_is(
    watched: Watched,
) -> None:
    watched.watch.note_load(LOAD)
    assert [watched.evict(1), watched.evict(1)] == [[], []]
    assert [watched.evict(5000), watched.evict(5000)] == [[], [600]]


def test_nothing_is_concluded_from_other_memories_or_what_was_never_loaded(
    watched: Watched,
) -> None:
    assert [watched.evict(500), watched.evict(500)] == [[], []]
    there = LOAD._replace(variant="n", processors=("gpu",))
    watched.watch.note_load(there)
    gone = Evict("n", 3, Span(), ("gpu",))
    assert [watched.evict(500, gone), watched.evict(500, gone)] == [[], []]


def test_another_place_of_the_same_name_starts_anew(watched: Watched) -> None:
    watched.watch.note_load(LOAD)
    watched.evict(500)
    watched.watch.note_load(LOAD._replace(place=4, size_bytes=300 * MIB))
    assert watched.evict(500) == []


def test_the_process_is_measured_and_the_core_told(watched: Watched) -> None:
    assert watched.watch.due_in_s() == 0.0
    watched.watch.look()
    assert watched.events == [MemoryMeasured(10 * MIB, 20 * MIB)]
    assert watched.watch.due_in_s() == memory_watch.PERIOD_S
    assert watched.watch.before == ProcessMemory(10 * MIB, 20 * MIB)
    watched.held, watched.now = None, 1.0  # a system that does not tell
    watched.watch.look()
    assert len(watched.events) == 1


def test_the_budget_follows_a_limit_down_and_up_again_with_one_warning(watched: Watched) -> None:
    assert watched.look(1024 * MIB) == []
    (lower,) = watched.look(500 * MIB)
    assert lower == MemoryGiven({"host": 400 * MIB}, "lru", 7)
    assert watched.look(500 * MIB) == []
    (least,) = watched.look(100 * MIB)
    assert least.budgets == {"host": 200 * MIB}, "with less some model could not run"
    assert watched.warnings == [
        "memory: the limit of this process was lowered to 100 MiB, so models get 200 MiB from now "
        "on, not 600 MiB; with less, some model could not run"
    ]
    (whole,) = watched.look(None)
    assert whole.budgets == {"host": 600 * MIB}
    assert len(watched.warnings) == 1


def test_models_get_no_more_than_the_rest_of_the_process_leaves(watched: Watched) -> None:
    watched.held = ProcessMemory(300 * MIB, 50 * MIB)
    assert watched.look(1024 * MIB) == []
    watched.held = ProcessMemory(300 * MIB, 0)  # the system takes pages away as it is lowered
    (lower,) = watched.look(700 * MIB)
    assert lower.budgets == {"host": 350 * MIB}
    assert "with less" not in watched.warnings[0]


def test_a_limit_that_was_there_from_the_start_is_the_users_business(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched = Watched(monkeypatch, limit=100 * MIB)
    assert watched.look(100 * MIB) == []
    assert watched.look(300 * MIB) == []
    assert not watched.warnings


def test_measured_sizes_shrink_with_the_budget_or_nothing_could_load_them(
    watched: Watched,
) -> None:
    watched.watch.note_load(LOAD)
    watched.evict(450)
    assert watched.evict(450) == [450]
    watched.look(500 * MIB)
    told = [e for e in watched.events if isinstance(e, MemoryMeasured) and e.place == 3]
    assert [each.size_bytes // MIB for each in told] == [400]
    assert watched.events.index(told[0]) < watched.events.index(
        MemoryGiven({"host": 400 * MIB}, "lru", 7)
    )


# devices with memory of their own


def of_device(monkeypatch: pytest.MonkeyPatch, budget: int = 600) -> Watched:
    watched = Watched(monkeypatch)
    watched.uses = {"GPU": use(held=0, free=1000)}
    watched.follow({"host": 600 * MIB, "GPU": budget * MIB})
    return watched


def use(held: int, free: int) -> DeviceUse:
    sizes = [each * MIB for each in (held, held, free, 1000)]
    return DeviceUse(
        held_bytes=sizes[0], kept_bytes=sizes[1], free_bytes=sizes[2], total_bytes=sizes[3]
    )


def test_the_core_learns_of_a_device_where_the_system_does_not_tell_of_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched = of_device(monkeypatch)
    watched.held = None
    watched.watch.note_load(LOAD._replace(processors=("gpu",)))
    evict = EVICT._replace(processors=("gpu",))
    assert [watched.evict(150, evict), watched.evict(140, evict)] == [[], [140]]


def test_a_place_on_a_device_counts_with_what_its_library_says_it_gave_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched = of_device(monkeypatch)
    there = LOAD._replace(variant="n", processors=("gpu",))
    gone = Evict("n", 3, Span(), ("gpu",))
    watched.watch.note_load(there)
    watched.uses = {"GPU": use(held=150, free=850)}
    assert watched.watch.held(gone) == 150 * MIB
    assert watched.watch.held(EVICT) == 30 * MIB, "what the process holds"
    assert [watched.evict(150, gone), watched.evict(140, gone)] == [[], [140]]


def test_the_budget_of_a_device_follows_what_others_leave_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched = of_device(monkeypatch)
    assert watched.look(1024 * MIB) == []
    watched.uses = {"GPU": use(held=300, free=100)}
    (lower,) = watched.look(1024 * MIB)
    assert lower.budgets == {"host": 600 * MIB, "GPU": 400 * MIB}
    assert watched.warnings == [
        "memory: this process can have 400 MiB of 'GPU', so models get 400 MiB from now on, not "
        "600 MiB"
    ]
    watched.uses = {"GPU": use(held=300, free=110)}
    assert watched.look(1024 * MIB) == [], "that changes all the time"
    watched.uses = {"GPU": use(held=10, free=20)}
    (least,) = watched.look(1024 * MIB)
    assert least.budgets["GPU"] == 200 * MIB, "with less some model could not run"
    watched.uses = {"GPU": use(held=300, free=700)}
    (whole,) = watched.look(1024 * MIB)
    assert whole.budgets["GPU"] == 600 * MIB
    assert len(watched.warnings) == 1


def test_limits_of_host_and_device_do_not_undo_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = of_device(monkeypatch)
    watched.look(500 * MIB)
    watched.uses = {"GPU": use(held=300, free=100)}
    (both,) = watched.look(500 * MIB)
    assert both.budgets == {"host": 400 * MIB, "GPU": 400 * MIB}


def test_a_device_of_which_nobody_knows_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = of_device(monkeypatch)
    watched.uses = {}
    assert watched.look(1024 * MIB) == []
    assert watched.watch.held(Evict("n", 3, Span(), ("gpu",))) is None


@pytest.mark.parametrize(
    ("limit", "is_tight"),
    [(None, False), (729 * MIB, True), (730 * MIB, False)],
    ids=["no limit", "tight", "room"],
)
def test_where_a_group_has_no_room_for_what_is_evicted_its_pages_go_at_once(
    limit: int | None, is_tight: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Models may take 600 MiB, the process takes 30 beside them, and what is evicted takes 100."""
    subject = Watched(monkeypatch, limit)
    assert not subject.watch.forgets(EVICT), "nobody knows it"
    subject.watch.note_load(LOAD)
    subject.watch.look()
    assert subject.watch.forgets(EVICT) == is_tight
    subject.follow({"GPU": 600 * MIB})
    subject.watch.note_load(LOAD)
    assert not subject.watch.forgets(EVICT)


def test_what_stays_in_the_page_cache_leaves_others_that_much_less_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There is room for 170 MiB: for one of two places of 100."""
    watch = Watched(monkeypatch, 800 * MIB).watch
    other = LOAD._replace(place=LOAD.place + 1, variant="other")
    for load in (LOAD, other):
        watch.note_load(load)
    watch.look()
    evict_other = EVICT._replace(model="other", place=other.place)
    assert not watch.forgets(EVICT)
    assert watch.forgets(evict_other)
    assert watch.forgets_unused(other)
    watch.note_load(LOAD)
    assert not watch.forgets_unused(LOAD)
    assert not watch.forgets(evict_other)
    assert watch.forgets(EVICT)


def test_what_is_unloaded_for_good_leaves_its_room_in_the_page_cache_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There is room for 170 MiB, and tenants of 100 come and go."""
    watch = Watched(monkeypatch, 800 * MIB).watch
    watch.look()
    for number in range(4):
        name = f"tenant{number}"
        watch.forget_gone({name})
        watch.note_load(LOAD._replace(place=number, variant=name, size_bytes=101 * MIB))
        assert not watch.forgets(EVICT._replace(place=number, model=name))
    watch.forget_gone(())
    watch.note_load(LOAD)
    assert not watch.forgets(EVICT)


@pytest.mark.parametrize("paged", [False, True])
def test_of_weights_that_wait_in_files_a_process_holds_nothing(
    paged: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: list[int] = []
    monkeypatch.setattr(engine_memory, "rest_beside", lambda held: told.append(held) or 0)
    content = MODEL.content.paged(tmp_path) if paged else MODEL.content
    profile = Profile({ProfileKey("a", "cpu"): Measurement(seconds=(1e-4,))})
    with Engine(
        {"a": replace(MODEL, content=content)},
        processors=[CPU],
        profile=profile,
        backends={"null": NullBackend()},
    ):
        assert (told[0] == 0) == paged


@pytest.mark.parametrize("limit", [None, 200])
def test_an_engine_lets_go_of_the_files_of_what_it_evicts(
    limit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mapping(NullSession):
        files = (Path("weights.bin"),)

    class Backend(NullBackend):
        def load(self, model: Model, processor: Processor) -> Session:
            session = super().load(model, processor)
            session.__class__ = Mapping
            return session

    forgotten: list[Path] = []
    unused: list[Path] = []
    monkeypatch.setattr(model_store, "forget_pages", forgotten.extend)
    monkeypatch.setattr(model_store, "forget_unmapped", unused.extend)
    monkeypatch.setattr(memory_watch, "process_memory", lambda: ProcessMemory(10, 20))
    monkeypatch.setattr("coinfer.api.engine.memory_limit_bytes", lambda: limit)
    memory = asked_in_turn(Backend(), MODEL)
    assert memory.evictions
    assert bool(forgotten) == bool(unused) == (limit is not None)
    assert {*forgotten, *unused} <= {Path("weights.bin")}


def test_what_is_loaded_within_a_budget_is_read_before_it_is_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[tuple[str, str]] = []

    class Backend(NullBackend):
        def load(self, model: Model, processor: Processor) -> Session:
            done.append(("open", processor.name))
            return super().load(model, processor)

    def read(_backend: Backend, _model: Model, processor: Processor) -> None:
        done.append(("read", processor.name))

    monkeypatch.setattr(model_store, "read_ahead", read)
    loads = asked_in_turn(Backend(), MODEL.renamed("other")).loads
    assert loads >= 2
    assert done == [("read", "cpu"), ("open", "cpu")] * loads
