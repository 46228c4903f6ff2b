"""What `memory_real.py` runs in a memory group: engines of one plan, one after the other.

python benchmarks/memory_child.py FOLDER   (orders on stdin, answers on stdout: lines of JSON)
"""

from __future__ import annotations

import dataclasses
import gc
import json
import sys
import time
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from coinfer.backends import heap
from coinfer.core.events import MemoryGiven
from coinfer.errors import CoinferError
from coinfer.hardware.cgroup import memory_limit_bytes
from coinfer.machine.memories import HOST
from coinfer.model import Model
from coinfer.model.paging import paged
from coinfer.plan.plan import Plan
from coinfer.planner.opened_plan import open_plan
from coinfer.policies import make_policy
from coinfer.runtime.engine import Engine
from coinfer.runtime.process_memory import process_memory
from coinfer.workload.rotation import rotation
from coinfer.zoo import sample_inputs
from memory_batches import batched

LIMIT_S = 40.0


def main() -> None:
    """Perform orders until there are none."""
    plan, models = opened(Path(sys.argv[1]))
    inputs = {name: sample_inputs(name) for name in plan.models}
    say({"ready": True})
    for line in sys.stdin:
        order = json.loads(line)
        budget, given = order["budget"], None
        if budget is not None:
            given = MemoryGiven({HOST: budget}, order["eviction"], order["most_models"])
        limited = dataclasses.replace(plan, memory={} if budget is None else {HOST: budget})
        try:
            if "most" in order:
                limited = batched(limited, order["most"])
            policy = make_policy(order.get("policy", "fcfs"))
            with Engine(
                limited, models, policy=policy, memory=given, memory_limit=memory_limit_bytes
            ) as engine:
                found = measured(engine, inputs, order)
                engine.stop(drain=False)
        except CoinferError as error:
            found = {"problem": str(error)}
        heap.trim()
        say(found)


def opened(folder: Path) -> tuple[Plan, dict[str, Model]]:
    """Open a plan of networks of the zoo; their weights stay in files."""
    planned = open_plan(folder)
    plan, models = planned.plan, {}
    for name in plan.models:
        model = planned.models[name]
        assert isinstance(model, Model)
        models[name] = paged(model)
    del planned, model
    gc.collect()
    heap.trim()
    return plan, models


def measured(engine: Engine, inputs: dict[str, Any], order: dict[str, Any]) -> dict[str, Any]:
    """Ask for what an order says; return what came of it.

    Raises:
        CoinferError: a request failed.
    """
    seconds, served = asked(engine, inputs, order)
    memory, held = engine.stats().memory, process_memory()
    return {
        "problem": "",
        "seconds": seconds,
        "served": served,
        "loads": memory.loads,
        "load_s": memory.load_s,
        "believed": sum(memory.resident_bytes.values()),
        "anonymous": held.anonymous if held else 0,
        "mapped": held.mapped if held else 0,
    }


def asked(engine: Engine, inputs: dict[str, Any], order: dict[str, Any]) -> tuple[float, int]:
    """Ask for all of the counts at once, or keep some in flight for a while.

    What takes too long is not waited for.

    Returns:
        Seconds, and requests served in them.

    Raises:
        CoinferError: a request failed.
    """
    answers: SimpleQueue[BaseException | None] = SimpleQueue()

    def ask(name: str) -> None:
        future = engine.submit(name, inputs[name])
        future.add_done_callback(lambda done: answers.put(done.exception()))

    def wait() -> float:
        problem = answers.get()
        if problem is not None:
            raise problem
        return time.perf_counter()

    began_s = now_s = time.perf_counter()
    counts = order["counts"]
    if counts:
        turns = list(islice(rotation(counts), sum(counts.values())))
        if order.get("one_by_one"):
            turns.sort(key=list(counts).index)
        for name in turns:
            ask(name)
        served = 0
        while served < len(turns) and now_s - began_s < LIMIT_S:
            now_s = wait()
            served += 1
        return now_s - began_s, served
    endless, served = rotation(order["weights"]), 0
    for _ in range(order["in_flight"]):
        ask(next(endless))
    begin_s = began_s + order["warmup_s"]
    end_s = begin_s + order["duration_s"]
    while (now_s := wait()) < end_s:
        served += now_s >= begin_s
        ask(next(endless))
    return order["duration_s"], served


def say(value: dict[str, Any]) -> None:
    """Answer an order."""
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    main()
