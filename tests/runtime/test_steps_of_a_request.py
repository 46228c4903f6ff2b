"""What a plain request costs the interpreter: bytecode instructions, which are the same on any day.

Timings of the hot path are in `benchmarks/round_trip.py`. They move with the host by more than a
change adds, so that many small additions go unseen; instructions do not.
"""

import sys
import threading
from collections import Counter, deque
from types import FrameType
from typing import Any

import pytest

from coinfer import Engine, Processor, Profile
from coinfer.backends.null import NullBackend
from coinfer.core import dispatcher
from coinfer.testing.models import tiny_linear

pytestmark = [
    pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="other versions count otherwise"),
    pytest.mark.skipif(dispatcher.__file__.endswith(".so"), reason="the core is compiled"),
    pytest.mark.skipif(sys.gettrace() is not None, reason="something traces already"),
]

REQUESTS = 300


class Steps:
    """Counts instructions by function, in all threads that are started while it is entered."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.counting = False

    def __enter__(self) -> "Steps":
        threading.settrace(self._enter)
        return self

    def __exit__(self, *_: object) -> None:
        threading.settrace(None)  # type: ignore[arg-type]  # as its documentation has it
        sys.settrace(None)

    def _enter(self, frame: FrameType, _event: str, _arg: Any) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        name = f"{frame.f_code.co_filename.rpartition('/')[2]} {frame.f_code.co_qualname}"

        def step(_frame: FrameType, event: str, _arg: Any) -> Any:
            self.counts[name] += self.counting and event == "opcode"
            return step

        return step

    def here(self) -> None:
        """Count in the calling thread, too, from now on."""
        sys.settrace(self._enter)
        self.counting = True

    def most(self) -> str:
        """Name the functions that cost most."""
        lines = (f"{count / REQUESTS:7.1f} {name}" for name, count in self.counts.most_common(25))
        return "\n" + "\n".join(lines)


# 2,010 and 2,482 when this was written; 1,895 and 2,305 before variants, memory and fused networks.
@pytest.mark.parametrize(("in_flight", "most"), [(1, 2_050), (64, 2_500)])
def test_a_plain_request_costs_few_instructions(in_flight: int, most: int) -> None:
    # Threads that wait for each other only ever add some: the least of three is what it costs.
    tries = (_counted(in_flight) for _ in range(3))
    steps = min(tries, key=lambda each: each.counts.total())
    assert steps.counts.total() / REQUESTS <= most, steps.most()
    assert steps.counts.total() / REQUESTS > 0.8 * most, "lower the limit"


def _counted(in_flight: int) -> Steps:
    """Count what many requests cost, of which so many are under way at once."""
    model = tiny_linear().model
    feed = model.sample_inputs()
    cpu = Processor(name="cpu0", backend="null", units=frozenset({"core0"}))
    with (
        Steps() as steps,
        Engine(
            {"m": model},
            processors=[cpu],
            profile=Profile.from_seconds({"m": {"cpu0": 1e-6}}),
            backends={"null": NullBackend()},
        ) as engine,
    ):
        for _ in range(20):
            engine.infer("m", feed)
        waiting: deque[Any] = deque()
        steps.here()
        for _ in range(REQUESTS):
            waiting.append(engine.submit("m", feed))
            if len(waiting) == in_flight:
                waiting.popleft().result()
        while waiting:
            waiting.popleft().result()
        steps.counting = False
        sys.settrace(None)
    return steps
