"""Runs to report on: simulated ones, and ones in which little or nothing happened."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from coinfer.core.events import MemoryMeasured
from coinfer.core.request import Outcome, Request
from coinfer.machine.machine import Machine
from coinfer.machine.machine_file import parse_machine
from coinfer.machine.span import Span
from coinfer.metrics.counts import ModelCounts, RunCounts
from coinfer.metrics.latency import ExactLatencies
from coinfer.metrics.memory_track import NO_MEMORY, MemoryRecords
from coinfer.metrics.records import ExecutionOutcome, ExecutionRecord, RequestRecord, Window
from coinfer.metrics.summary import Summary, summarise
from coinfer.plan import Plan
from coinfer.policies import make_policy
from coinfer.report import write_report
from coinfer.sim import simulate
from coinfer.workload.scenario_file import parse_scenario
from sim.machines import machine

BURSTY = """
# Two cameras with deadlines and a background job. <script>alert("text")</script>
name: bursty & busy
models:
  front: {source: "zoo:lenet", deadline: 30ms, on_late: drop}
  rear: {source: "zoo:lenet", deadline: 80ms}
  idle_time: {source: "zoo:lenet"}
arrivals:
  front: {gamma: 60/s, cv: 4}
  rear: {poisson: 30/s}
  idle_time: {closed: 1}
duration: 4s
warmup: 500ms
seed: 1
"""

MACHINE = machine(
    {
        "front": {"cpu0": 0.010, "npu": 0.004},
        "rear": {"cpu0": 0.030, "npu": 0.012},
        "idle_time": {"cpu0": 0.050, "npu": 0.025},
    },
    spreads={(m, p): 0.3 for m in ("front", "rear", "idle_time") for p in ("cpu0", "npu")},
)

SHARES = {"cpu0": {"idle_time": 1.0}, "npu": {"front": 0.4, "rear": 0.6}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run with all that a report shows of it."""

    summary: Summary
    requests: list[RequestRecord]
    executions: list[ExecutionRecord]
    window: Window
    text: str = ""
    shares: Mapping[str, Mapping[str, float]] | None = None
    memory: MemoryRecords = NO_MEMORY

    def write(self, path: Path) -> str:
        """Write the report and return the page without the chart library."""
        write_report(
            path,
            self.summary,
            requests=self.requests,
            executions=self.executions,
            window=self.window,
            shares=self.shares,
            scenario_text=self.text,
            memory=self.memory,
        )
        return path.read_text("utf-8")


def simulated(
    text: str = BURSTY, on: Machine = MACHINE, *, policy: str = "earliest_finish", **fields: Any
) -> Run:
    """Simulate a scenario; fields go to `Run`."""
    scenario = parse_scenario(text)
    done = simulate(scenario, Plan.of(on), make_policy(policy), keep_records=True)
    summary = summarise(
        done.run_counts,
        scenario=scenario.name,
        mode="simulate",
        policy=policy,
        seed=scenario.seed,
        processors=on.processors,
        models=scenario.models,
        environment={"cpu": "imagined", "backends": {"null": "1.0"}},
        bound_per_s=200.0,
    )
    return Run(
        summary=summary,
        requests=list(done.recorder.requests()),
        executions=list(done.recorder.executions()),
        window=done.recorder.window,
        text=text,
        **fields,
    )


def charts(page: str) -> dict[str, dict[str, Any]]:
    """The charts in a page, by id."""
    found = re.search(r'<script type="application/json" id="charts">(.*?)</script>', page, re.S)
    assert found is not None
    return {chart["id"]: chart for chart in json.loads(found[1])}


def renamed(run: Run, names: Mapping[str, str]) -> Run:
    """Copy a run with other names of models and processors."""

    def of(name: str) -> str:
        return names.get(name, name)

    return replace(
        run,
        summary=replace(
            run.summary,
            scenario=of(run.summary.scenario),
            models={of(name): row for name, row in run.summary.models.items()},
            processors={of(name): row for name, row in run.summary.processors.items()},
        ),
        requests=[
            replace(r, model=of(r.model), processors=tuple(map(of, r.processors)))
            for r in run.requests
        ],
        executions=[
            replace(r, model=of(r.model), processor=of(r.processor)) for r in run.executions
        ],
    )


def emptied(run: Run) -> Run:
    """The same run if no request had come."""
    quiet = summarise(
        RunCounts(duration_s=run.summary.duration_s),
        scenario=run.summary.scenario,
        mode="run",
        policy="fcfs",
        seed=0,
        processors=MACHINE.processors,
        models=run.summary.models,
    )
    return replace(run, summary=quiet, requests=[], executions=[], shares=None)


@cache
def many(count: int) -> Run:
    """A run of so many executions, one request each, on two processors; every third is late."""
    requests, executions = [], []
    counts, length_s = ModelCounts(ExactLatencies()), 0.01
    for number in range(count):
        start_s = number // 2 * length_s
        processor = MACHINE.processors[number % 2].name
        due_s, end_s = start_s - number % 7 * 0.001, start_s + length_s
        request = Request(
            id=number, model="front", arrival_s=due_s, deadline_s=end_s - 0.001 * (number % 3 == 0)
        )
        counts.submit(request)
        counts.answer(request, Outcome.COMPLETED, end_s)
        requests.append(
            RequestRecord(
                id=number,
                model="front",
                due_s=due_s,
                started_s=start_s,
                finished_s=end_s,
                outcome=Outcome.COMPLETED,
                deadline_s=request.deadline_s,
                priority=0,
                batch=1,
                processors=(processor,),
                executions=(number,),
                reason="",
            )
        )
        executions.append(
            ExecutionRecord(
                id=number,
                processor=processor,
                model="front",
                span=Span(),
                batch=1,
                started_s=start_s,
                finished_s=end_s,
                expected_s=length_s,
                service_s=length_s,
                request_ids=(number,),
                outcome=ExecutionOutcome.OK,
                reason="",
            )
        )
    end_s = count / 2 * length_s
    run_counts = RunCounts(duration_s=end_s, models={"front": counts})
    summary = summarise(
        run_counts,
        scenario="many",
        mode="simulate",
        policy="fcfs",
        seed=0,
        processors=MACHINE.processors,
    )
    window = Window(start_s=0.0, end_s=end_s)
    return Run(summary=summary, requests=requests, executions=executions, window=window)


def with_memory() -> Run:
    """A run of two models of which memory holds one, in a process that was measured once."""
    on = parse_machine(
        "processors: {cpu0: {}}\n"
        "times:\n"
        "  a: {cpu0: {mean: 10ms, load: 50ms, memory: 100MiB}}\n"
        "  b: {cpu0: {mean: 10ms, load: 50ms, memory: 100MiB}}\n"
    )
    scenario = parse_scenario(
        "models: {a: x.onnx, b: y.onnx}\n"
        "arrivals: {offline: {counts: {a: 4, b: 4}, order: grouped}}\n"
        "memory: 100MiB\n"
    )
    plan = replace(Plan.of(on), memory=scenario.memory.budget)
    done = simulate(scenario, plan, make_policy("fcfs"), deterministic=True, keep_records=True)
    recorder = done.recorder
    recorder.observe(MemoryMeasured(60 << 20, 50 << 20), (), 0.12)
    summary = summarise(
        recorder.run_counts(now=done.run_counts.duration_s),
        scenario=scenario.name,
        mode="run",
        policy="fcfs",
        seed=0,
        processors=on.processors,
        memory=scenario.memory.budget,
    )
    return Run(
        summary=summary,
        requests=list(recorder.requests()),
        executions=list(recorder.executions()),
        window=recorder.window,
        memory=recorder.memory(),
    )
