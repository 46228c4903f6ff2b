"""A short form of `fuzz/engine_stress.py`: signals, deaths, cancels, loads and unloads at once."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator

import pytest

from fuzz.engine_stress import Stress

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
