"""What a server keeps at twice its capacity: requests with deadlines, refused early or not.

    python benchmarks/serving_overload.py [--quick] [--rounds 9] [--service-ms 20]

The null backend sleeps for the time of a run on each of two processors, so capacity is known: it is
measured in the same round by as many requests as fit, without deadlines. Then requests come evenly
at twice that rate, each with a deadline of ten runs. In time is what was answered within it, per
second until the last deadline. Without early refusals, the core drops a request when it sees that
no processor can be in time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from functools import partial
from typing import NamedTuple

import numpy as np

import coinfer
from coinfer.backends.null import NullBackend
from coinfer.errors import RejectedError
from coinfer.metrics.paired import LEAST_ROUNDS
from coinfer.model import Model
from coinfer.runtime import clock
from coinfer.runtime.future import InferenceFuture
from coinfer.server.inference import Inference
from coinfer.server.request import InferRequest, InputTensor
from coinfer.server.served_model import served
from coinfer.server.service import Service
from coinfer.testing.models import tiny_linear
from environment import OtherWork, print_environment
from requirement import Requirement, print_requirements
from tables import new_console, new_table

DEADLINE_RUNS, OFFERED, PROCESSORS = 10, 2.0, 2
LEAST_KEPT, MOST_REFUSAL_MS = 0.9, 5.0


class Found(NamedTuple):
    """What came of one round, per second of the load; the refusals' 99th percentile in seconds."""

    capacity: float
    in_time: float
    refused: float
    refusal_s: float

    @property
    def kept(self) -> float:
        return self.in_time / self.capacity


def main() -> int:
    """Measure and print; the exit status is 1 if a requirement is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one short round, no claims")
    parser.add_argument("--rounds", type=int, default=LEAST_ROUNDS)
    parser.add_argument("--service-ms", type=float, default=20.0)
    given = parser.parse_args()
    rounds, load_s = (1, 1.0) if given.quick else (given.rounds, 4.0)
    console, found = new_console(), {True: list[Found](), False: list[Found]()}
    print_environment(console)
    with OtherWork() as other:
        for number in range(rounds):
            for early in (True, False) if number % 2 == 0 else (False, True):
                found[early].append(measured(given.service_ms / 1e3, load_s, early=early))
    table = new_table(
        ("twice the capacity",),
        ("capacity/s", "in time/s", "of capacity", "refused early/s", "refusal p99 ms"),
    )
    for early, rows in found.items():
        middle = [statistics.median(each) for each in zip(*rows, strict=True)]
        kept = statistics.median(each.kept for each in rows)
        name = "refused early" if early else "dropped by the core"
        figures = (f"{middle[0]:.0f}", f"{middle[1]:.0f}", f"{kept:.2f}", f"{middle[2]:.0f}")
        table.add_row(name, *figures, f"{middle[3] * 1e3:.2f}")
    console.print(table)
    console.print(other.note)
    return print_requirements(
        console,
        [
            Requirement(
                what="answered in time, of the capacity",
                value=statistics.median(each.kept for each in found[True]),
                required=LEAST_KEPT,
            ),
            Requirement(
                what="99th percentile of the early refusals",
                value=statistics.median(each.refusal_s for each in found[True]) * 1e3,
                required=MOST_REFUSAL_MS,
                at_most=True,
                unit=" ms",
            ),
        ],
    )


def measured(service_s: float, load_s: float, *, early: bool) -> Found:
    """Measure the capacity, then offer twice of it."""
    model, service = tiny_linear().model, Service()
    service.refuses_early = early
    x = [InputTensor("x", "FP32", np.zeros((1, 4), np.float32))]
    with engine_of(model, service_s) as engine:
        service.open(engine, [served("m", model)])
        began_s, count = clock.now(), round(PROCESSORS * load_s / 2 / service_s)
        for inference in [service.infer(InferRequest("m", x)) for _ in range(count)]:
            inference.response(60)
        capacity = count / (clock.now() - began_s)
        return offered(service, x, capacity, load_s, DEADLINE_RUNS * service_s)


def offered(
    service: Service, x: list[InputTensor], capacity: float, load_s: float, deadline_s: float
) -> Found:
    """Offer twice the capacity, evenly."""
    rate = OFFERED * capacity
    request = InferRequest("m", x, parameters={"timeout": int(deadline_s * 1e6)})
    taken: list[Inference] = []
    in_time: list[bool] = []
    refusals: list[float] = []

    def note(future: InferenceFuture, due_s: float) -> None:
        is_answered = future.exception() is None
        in_time.append(is_answered and clock.now() - due_s <= deadline_s)

    began_s = clock.now()
    for number in range(int(rate * load_s)):
        due_s = began_s + number / rate
        time.sleep(max(0.0, due_s - clock.now()))
        asked_s = clock.now()
        try:
            inference = service.infer(request)
        except RejectedError:
            refusals.append(clock.now() - asked_s)
            continue
        inference.on_done(partial(note, due_s=due_s))
        taken.append(inference)
    for inference in taken:
        inference.future.exception(60)
    refusal_s = float(np.percentile(refusals, 99)) if refusals else 0.0
    # The last requests have their whole deadline after the load.
    per_s = sum(in_time) / (load_s + deadline_s)
    return Found(capacity, per_s, len(refusals) / load_s, refusal_s)


def engine_of(model: Model, service_s: float) -> coinfer.Engine:
    names = [f"p{number}" for number in range(PROCESSORS)]
    processors = [
        coinfer.Processor(name=name, backend="null", units=frozenset({name})) for name in names
    ]
    profile = coinfer.Profile.from_seconds({"m": dict.fromkeys(names, service_s)})
    backends = {"null": NullBackend(service_s)}
    return coinfer.Engine({"m": model}, processors=processors, profile=profile, backends=backends)


if __name__ == "__main__":
    raise SystemExit(main())
