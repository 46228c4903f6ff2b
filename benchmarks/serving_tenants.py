"""What tenants get of two busy processors, by weight and without weights.

    python benchmarks/serving_tenants.py [--quick]

The null backend sleeps for the time of a run: 4 ms for the model that tenant `a` asks, 20 ms for
that of tenant `b`. Each keeps 60 requests under way. `a` has three times the weight of `b`. In half
of the rounds `b` asks nothing. Seconds are those of answered requests, at what their runs were to
sleep; that they sleep a little longer is why processors are never used in full.
"""

from __future__ import annotations

import argparse
import statistics
import threading
from functools import partial
from queue import SimpleQueue
from typing import Any

import numpy as np

import coinfer
from coinfer.backends.null import NullBackend
from coinfer.metrics.paired import LEAST_ROUNDS
from coinfer.runtime import clock
from coinfer.server.request import InferRequest, InputTensor
from coinfer.server.served_model import served
from coinfer.server.service import Service
from coinfer.testing.models import tiny_linear
from environment import OtherWork, print_environment
from requirement import Requirement, print_requirements
from tables import new_console, new_table

SECONDS = {"a": 0.004, "b": 0.020}
WEIGHTS = {"a": 3.0, "b": 1.0}
UNDER_WAY, PROCESSORS = 60, ("p0", "p1")
MOST_OFF, LEAST_BUSY = 0.1, 0.97


def main() -> int:
    """Measure and print; the exit status is 1 if a requirement is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one short round, no claims")
    given = parser.parse_args()
    rounds, load_s = (1, 1.0) if given.quick else (LEAST_ROUNDS, 2.0)
    console = new_console()
    print_environment(console)
    arms: dict[str, tuple[dict[str, float], tuple[str, ...]]] = {
        "by weight": (WEIGHTS, ("a", "b")),
        "without weights": ({}, ("a", "b")),
        "by weight, b asks nothing": (WEIGHTS, ("a",)),
        "without weights, b asks nothing": ({}, ("a",)),
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in arms}
    with OtherWork() as other:
        for number in range(rounds):
            for name in list(arms) if number % 2 == 0 else reversed(list(arms)):
                found[name].append(measured(*arms[name], load_s))
    table = new_table(("two processors",), ("a, of the time", "b, of the time", "a / b"))
    for name, rows in found.items():
        a, b = (statistics.median(row[each] for row in rows) for each in "ab")
        table.add_row(name, f"{a:.3f}", f"{b:.3f}", f"{a / b:.2f}" if b else "")
    console.print(table)
    console.print(other.note)
    shared, plain, alone, alone_plain = (found[name] for name in arms)
    ratio = statistics.median(row["a"] / row["b"] for row in shared)
    return print_requirements(
        console,
        [
            Requirement(
                what="share of a over that of b, off 3.0",
                value=abs(ratio / 3.0 - 1.0),
                required=MOST_OFF,
                at_most=True,
            ),
            Requirement(
                what="processors' time used, of that without weights",
                value=_used(shared) / _used(plain),
                required=LEAST_BUSY,
            ),
            Requirement(
                what="the same where b asks nothing",
                value=_used(alone) / _used(alone_plain),
                required=LEAST_BUSY,
            ),
        ],
    )


def _used(rows: list[dict[str, float]]) -> float:
    return statistics.median(row["a"] + row["b"] for row in rows)


def measured(
    weights: dict[str, float], tenants: tuple[str, ...], load_s: float
) -> dict[str, float]:
    """Let tenants flood an engine; return what each got of the processors' time."""
    model, service = tiny_linear().model, Service()
    service.weights = weights
    x = [InputTensor("x", "FP32", np.zeros((1, 4), np.float32))]
    counts = dict.fromkeys(SECONDS, 0)
    ended, wanted = threading.Event(), SimpleQueue[str]()

    def ask() -> None:  # as the thread of a server's event loop does
        while not ended.is_set():
            tenant = wanted.get()
            service.infer(InferRequest(tenant, x), tenant=tenant).on_done(partial(again, tenant))

    def again(tenant: str, _future: Any) -> None:
        counts[tenant] += 1
        wanted.put(tenant)

    profile = coinfer.Profile.from_seconds(
        {name: dict.fromkeys(PROCESSORS, seconds) for name, seconds in SECONDS.items()}
    )
    processors = [
        coinfer.Processor(name=name, backend="null", units=frozenset({name})) for name in PROCESSORS
    ]
    backend = NullBackend(lambda name, _processor, _batch: SECONDS[name])
    with coinfer.Engine(
        dict.fromkeys(SECONDS, model),
        processors=processors,
        profile=profile,
        backends={"null": backend},
    ) as engine:
        service.open(engine, [served(name, model) for name in SECONDS])
        asking, began_s = threading.Thread(target=ask), clock.now()
        for _ in range(UNDER_WAY):
            for tenant in tenants:
                wanted.put(tenant)
        asking.start()
        ended.wait(load_s)
        got, seconds = dict(counts), clock.now() - began_s
        ended.set()
        asking.join()
        if service.tenants is not None:
            service.tenants.close("the round is over")
    return {name: got[name] * SECONDS[name] / seconds / len(PROCESSORS) for name in SECONDS}


if __name__ == "__main__":
    raise SystemExit(main())
