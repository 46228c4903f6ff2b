"""Urgent networks beside heavy ones with plain threads; one way in one process.

    python benchmarks/urgent_peers.py WAY --streams FILE:RATE [...] --heavy FILE [...]

Each urgent stream is asked periodically by a thread of its own; each heavy network is asked again
as soon as it has answered, by a thread of its own. Prints JSON: per stream the seconds from due to
answered, and completions of each heavy one inside the window. Knows nothing of coinfer's engine;
`urgent` explains the rules. OpenVINO's CPU plugin has no priorities of models (`MODEL_PRIORITY`).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["WAYS", "Way"]

_NICEST = 19
WARMUP_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to run them.

    Attributes:
        title: For the table.
        library: Which one runs the networks.
        threads: Threads of each session; 0 is the library's default, one per core.
        nice: Niceness of the heavy threads.
        is_idle: Whether the heavy threads are of the class `SCHED_IDLE`.
        is_urgent_asked: Whether the urgent networks are asked at all.
    """

    title: str
    library: str = "onnxruntime"
    threads: int = 1
    nice: int = 0
    is_idle: bool = False
    is_urgent_asked: bool = True


WAYS: Mapping[str, Way] = {
    "alone": Way(title="onnxruntime: heavy ones alone, 1 thread each", is_urgent_asked=False),
    "defaults": Way(title="onnxruntime: its defaults", threads=0),
    "one-thread": Way(title="onnxruntime: 1 thread"),
    "nice": Way(title=f"onnxruntime: 1 thread, heavy at niceness {_NICEST}", nice=_NICEST),
    "idle": Way(title="onnxruntime: 1 thread, heavy SCHED_IDLE", is_idle=True),
    "ov-defaults": Way(title="OpenVINO: its defaults", library="openvino", threads=0),
    "ov-nice": Way(
        title=f"OpenVINO: 1 thread, heavy at niceness {_NICEST}",
        library="openvino",
        nice=_NICEST,
    ),
    "ov-idle": Way(title="OpenVINO: 1 thread, heavy SCHED_IDLE", library="openvino", is_idle=True),
}


def load(file: Path, way: Way) -> Callable[[], object]:
    """Load a network as a way says; return what runs it once."""
    from coinfer.model import load_model

    feed = load_model(file).sample_inputs()
    if way.library == "openvino":
        return _openvino(file, way, feed)
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    if way.threads:
        options.intra_op_num_threads = options.inter_op_num_threads = way.threads
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, feed)


def _openvino(file: Path, way: Way, feed: Mapping[str, Any]) -> Callable[[], object]:
    import openvino as ov

    # As all others compute: by itself it takes bf16 where the processor has that.
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if way.threads:  # no stream: what asks computes, so its priority counts
        settings |= {"NUM_STREAMS": 0, "INFERENCE_NUM_THREADS": way.threads}
    else:
        settings["PERFORMANCE_HINT"] = "LATENCY"
    request = ov.Core().compile_model(str(file), "CPU", settings).create_infer_request()
    return lambda: request.infer(feed, share_inputs=True)


class Heavy(threading.Thread):
    """Asks one network again and again."""

    def __init__(self, run: Callable[[], object], way: Way) -> None:
        super().__init__(daemon=True)
        self._run, self._way = run, way
        self.ended_s: list[float] = []

    def run(self) -> None:
        """Go on until the process ends."""
        if sys.platform == "linux":
            if self._way.nice:
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._way.nice)
            if self._way.is_idle:
                os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        while True:
            self._run()
            self.ended_s.append(time.perf_counter())


class Stream(threading.Thread):
    """Asks at every multiple of a period."""

    def __init__(
        self, run: Callable[[], object], *, period_s: float, begin_s: float, end_s: float
    ) -> None:
        super().__init__(daemon=True)
        self._run, self._period_s = run, period_s
        self._begin_s, self._end_s = begin_s, end_s
        self.latencies_s: list[float] = []

    def run(self) -> None:
        """Go on until the window ends."""
        number = 0
        while (due_s := self._begin_s + number * self._period_s) < self._end_s:
            number += 1
            if (wait_s := due_s - time.perf_counter()) > 0:
                time.sleep(wait_s)
            self._run()
            self.latencies_s.append(time.perf_counter() - due_s)


def main() -> None:
    """Run one way and print its figures."""
    arguments = _arguments()
    way = WAYS[arguments.way]
    named = [text.rpartition(":") for text in arguments.streams if way.is_urgent_asked]
    urgent = [(load(Path(file), way), float(rate)) for file, _, rate in named]
    heavies = [Heavy(load(file, way), way) for file in arguments.heavy]
    for run, _ in urgent:
        run()
    for heavy in heavies:
        heavy.start()
    begin_s = time.perf_counter() + WARMUP_S
    end_s = begin_s + arguments.seconds
    streams = [Stream(run, period_s=1 / rate, begin_s=begin_s, end_s=end_s) for run, rate in urgent]
    for stream in streams:
        stream.start()
    time.sleep(max(0.0, end_s - time.perf_counter()))
    for stream in streams:
        stream.join(5.0)
    counts = [sum(begin_s <= at < end_s for at in heavy.ended_s) for heavy in heavies]
    print(json.dumps({"latencies_s": [s.latencies_s for s in streams], "heavy": counts}))
    sys.stdout.flush()
    os._exit(0)  # what still runs is of no interest


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("--streams", nargs="+", required=True, metavar="FILE:RATE")
    parser.add_argument("--heavy", type=Path, nargs="+", required=True)
    parser.add_argument("--seconds", type=float, default=20.0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
