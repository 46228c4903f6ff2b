"""The mailbox handles every item once, in order, one at a time, without a thread of its own."""

from __future__ import annotations

import contextlib
import threading
from collections import deque

from coinfer.runtime.mailbox import Mailbox


def test_items_of_many_threads_are_handled_once_and_never_two_at_a_time() -> None:
    handled: list[tuple[int, int]] = []
    inside = 0
    overlaps = 0

    def handle(item: tuple[int, int], calls: deque) -> None:
        nonlocal inside, overlaps
        inside += 1
        overlaps += inside != 1
        handled.append(item)
        inside -= 1

    box: Mailbox = Mailbox(handle, lambda call: call())
    threads = [
        threading.Thread(target=lambda t=t: [box.post((t, i)) for i in range(2_000)])
        for t in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert overlaps == 0
    assert sorted(handled) == [(t, i) for t in range(4) for i in range(2_000)]
    for t in range(4):
        assert [i for u, i in handled if u == t] == list(range(2_000))


def test_calls_run_after_ownership_is_given_up() -> None:
    seen: list[str] = []

    def handle(item: str, calls: deque) -> None:
        seen.append(f"handle {item}")
        if item == "first":
            calls.append(lambda: box.post("second"))
            calls.append(lambda: seen.append("call"))

    box: Mailbox = Mailbox(handle, lambda call: call())
    box.post("first")
    assert seen == ["handle first", "handle second", "call"]


def test_a_long_chain_of_calls_that_post_does_not_grow_the_stack() -> None:
    left = 20_000

    def handle(item: int, calls: deque) -> None:
        nonlocal left
        left -= 1
        if left > 0:
            calls.append(lambda: box.post(item + 1))

    box: Mailbox = Mailbox(handle, lambda call: call())
    box.post(0)
    assert left == 0


def test_an_error_in_a_call_does_not_block_the_box() -> None:
    def handle(item: int, calls: deque) -> None:
        handled.append(item)
        if item == 0:
            calls.append(lambda: 1 / 0)

    handled: list[int] = []
    box: Mailbox = Mailbox(handle, lambda call: call())
    with contextlib.suppress(ZeroDivisionError):
        box.post(0)
    box.post(1)
    assert handled == [0, 1]
