"""An urgent network beside heavy ones with plain onnxruntime threads; one way in one process.

    python benchmarks/urgent_peers.py WAY --urgent FILE --heavy FILE [FILE...] --seconds 20

The urgent network is asked periodically and must answer within one deadline of the due moment; each
heavy one is asked again as soon as it has answered, by a thread of its own. Prints JSON: latencies
of the urgent one in seconds, and completions of each heavy one inside the window. Knows nothing of
coinfer's engine; `urgent` explains the rules.
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
        threads: Threads of each session; 0 is the library's default, one per core.
        nice: Niceness of the heavy threads.
        is_urgent_asked: Whether the urgent network is asked at all.
    """

    title: str
    threads: int = 1
    nice: int = 0
    is_urgent_asked: bool = True


WAYS: Mapping[str, Way] = {
    "alone": Way(title="the heavy ones alone, 1-thread sessions", is_urgent_asked=False),
    "defaults": Way(title="onnxruntime defaults, a thread per network", threads=0),
    "one-thread": Way(title="1-thread sessions, a thread per network"),
    "nice": Way(title=f"1-thread sessions, heavy threads at niceness {_NICEST}", nice=_NICEST),
}


class Run:
    """A session with its inputs."""

    def __init__(self, file: Path, threads: int) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 4
        if threads:
            options.intra_op_num_threads = options.inter_op_num_threads = threads
        self._session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self._feed = _feed(file)

    def __call__(self) -> None:
        """Run once."""
        self._session.run(None, self._feed)


def _feed(file: Path) -> dict[str, Any]:
    from coinfer.model import load_model

    return load_model(file).sample_inputs()


class Heavy(threading.Thread):
    """Asks one network again and again."""

    def __init__(self, run: Run, nice: int) -> None:
        super().__init__(daemon=True)
        self._run, self._nice = run, nice
        self.ended_s: list[float] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        """Go on until stopped."""
        if self._nice and sys.platform == "linux":
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._nice)
        while not self.stopped.is_set():
            self._run()
            self.ended_s.append(time.perf_counter())


def ask(run: Callable[[], None], *, period_s: float, begin_s: float, end_s: float) -> list[float]:
    """Ask at every multiple of the period; return the seconds from due to answered."""
    latencies = []
    number = 0
    while (due_s := begin_s + number * period_s) < end_s:
        number += 1
        if (wait_s := due_s - time.perf_counter()) > 0:
            time.sleep(wait_s)
        run()
        latencies.append(time.perf_counter() - due_s)
    return latencies


def main() -> None:
    """Run one way and print its figures."""
    arguments = _arguments()
    way = WAYS[arguments.way]
    urgent = Run(arguments.urgent, way.threads)
    heavies = [Heavy(Run(file, way.threads), way.nice) for file in arguments.heavy]
    urgent()
    for heavy in heavies:
        heavy.start()
    begin_s = time.perf_counter() + WARMUP_S
    end_s = begin_s + arguments.seconds
    latencies: list[float] = []
    if way.is_urgent_asked:
        time.sleep(WARMUP_S)
        period_s = 1 / arguments.rate
        latencies = ask(urgent, period_s=period_s, begin_s=begin_s, end_s=end_s)
    time.sleep(max(0.0, end_s - time.perf_counter()))
    counts = [sum(begin_s <= at < end_s for at in heavy.ended_s) for heavy in heavies]
    for heavy in heavies:
        heavy.stopped.set()
    print(json.dumps({"latencies_s": latencies, "heavy": counts}))
    sys.stdout.flush()
    os._exit(0)  # what still runs is of no interest


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("--urgent", type=Path, required=True)
    parser.add_argument("--heavy", type=Path, nargs="+", required=True)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=30.0, help="urgent requests per second")
    return parser.parse_args()


if __name__ == "__main__":
    main()
