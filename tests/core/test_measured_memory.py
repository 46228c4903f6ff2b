"""What places were measured to take enters the core as an event."""

from __future__ import annotations

from coinfer.core.events import MemoryMeasured
from coinfer.testing.machine import VirtualMachine
from core.test_loading import fill, machine, moves


def number_of(subject: VirtualMachine, name: str) -> int:
    return next(place for place, load in subject.resident.items() if load.variant == name)


def test_a_place_that_takes_more_than_was_planned_makes_room_for_itself() -> None:
    subject = machine(200)
    fill(subject)
    assert moves(subject) == ["+a", "+b"]
    subject.post(MemoryMeasured(0, 0, number_of(subject, "b"), 150))
    assert moves(subject) == ["+a", "+b", "-a"]
    assert subject.dispatcher.memories == {"host": (200, 150)}
    for name in "acb":
        subject.submit(name)
    subject.run()
    assert len(subject.replies) == 3
    assert subject.dispatcher.memories["host"][1] <= 200


def test_what_is_evicted_counts_with_its_measured_size_once_it_is_loaded_again() -> None:
    subject = machine(200)
    fill(subject)
    number = number_of(subject, "a")
    for name in "cc":
        subject.submit(name)
    subject.run()
    assert moves(subject) == ["+a", "+b", "-a", "+c"]
    subject.post(MemoryMeasured(0, 0, number, 180))
    subject.submit("a")
    subject.run()
    assert moves(subject)[-3:] == ["-b", "-c", "+a"]
    assert subject.dispatcher.memories == {"host": (200, 180)}


def test_a_measured_process_alone_changes_nothing() -> None:
    subject = machine(200)
    fill(subject)
    before = moves(subject)
    subject.post(MemoryMeasured(10**12, 10**12))
    subject.post(MemoryMeasured(1, 1, place=999, size_bytes=10**12))
    assert moves(subject) == before
    assert subject.dispatcher.memories == {"host": (200, 200)}
