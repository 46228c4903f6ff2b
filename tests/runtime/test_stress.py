"""A short form of `fuzz/engine_stress.py`: signals, deaths, cancels, loads and unloads at once."""

from __future__ import annotations

import logging
import random
import signal
import weakref
from collections.abc import Iterator

import pytest

from fuzz.engine_stress import Signals, Stress

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no interval timers"),
]


@pytest.fixture
def quiet() -> Iterator[None]:
    """An exception inside of logging can leave a lock of that taken."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


# A signal between the opening of a file and the `with` block leaves it to the collector.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("seed", [0, 1])
def test_every_future_is_answered_once_and_the_engine_stops(seed: int) -> None:
    stress = Stress(seed)
    stress.run(1500)
    assert stress.done["interrupts"] > 50
    assert stress.done["deaths"] > 1


class Late(random.Random):
    """Has the timer's own signal come long after the test."""

    def uniform(self, a: float, b: float) -> float:
        return 60.0


def test_a_signal_in_a_callback_of_a_weak_reference_interrupts_nothing() -> None:
    class Kept:
        pass

    def drop() -> str:
        kept = Kept()
        reference = weakref.ref(kept, lambda _: signal.raise_signal(signal.SIGALRM))
        del kept
        return "went on" if reference() is None else ""

    with Signals(Late(0)) as signals:
        assert signals.disturb(drop) == "went on"
    assert signals.raised == 0
