"""Other ways to run several networks on the same cores; one way in one process.

    python benchmarks/peers.py PEER --folder FOLDER --seconds 8 --warmup 1

`FOLDER` holds `NAME.onnx` and `NAME.npy` (prepared inputs, one per row) for each network. Prints
JSON: completions per network inside the measuring window, and the window's seconds. A process of
its own because thread pools belong to the process. Knows nothing of tables and of coinfer's
engine; `three_networks` explains the rules.
"""

from __future__ import annotations

import argparse
import itertools
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coinfer.hardware import available_cores
from coinfer.threads.pinning import pin_current_thread

__all__ = ["PEERS", "Peer"]

Run = Callable[[int], object]
"""Runs one network on its k-th input and returns when the outputs are there."""

LEADS = (1, 4)
"""With a thread per network: how many inferences it may be ahead of the slowest network."""


class Meter:
    """Counts completions inside a window; warm-up comes before it."""

    def __init__(self, names: Sequence[str], *, warmup_s: float, seconds: float) -> None:
        self.counts = dict.fromkeys(names, 0)
        self.seconds = seconds
        self._warmup_s = warmup_s
        self._begin_s = self._end_s = 0.0

    def start(self) -> None:
        """Begin the warm-up."""
        self._begin_s = time.perf_counter() + self._warmup_s
        self._end_s = self._begin_s + self.seconds

    @property
    def is_over(self) -> bool:
        """Whether the window has passed."""
        return time.perf_counter() >= self._end_s

    def note(self, name: str) -> None:
        """Count a completion that happens now; one thread per name, or a lock outside."""
        if self._begin_s <= time.perf_counter() < self._end_s:
            self.counts[name] += 1


# how requests are handed to the networks


def in_sequence(runs: Mapping[str, Run], meter: Meter) -> None:
    """Call the networks in rotation from one thread."""
    meter.start()
    for number in itertools.count():
        for name, run in runs.items():
            run(number)
            meter.note(name)
        if meter.is_over:
            return


def thread_each(runs: Mapping[str, Run], meter: Meter, *, lead: int) -> None:
    """Give each network a thread, none more than `lead` inferences ahead of the slowest."""
    done = dict.fromkeys(runs, 0)
    turn = threading.Condition()

    def serve(name: str, run: Run) -> None:
        for number in itertools.count():
            with turn:
                turn.wait_for(lambda: done[name] < min(done.values()) + lead or meter.is_over)
                if meter.is_over:
                    turn.notify_all()  # others may wait for this thread, which ends here
                    return
            run(number)
            meter.note(name)
            with turn:
                done[name] += 1
                turn.notify_all()

    meter.start()
    _in_threads([lambda n=n, r=r: serve(n, r) for n, r in runs.items()])


def pinned_workers(runs: Mapping[str, Run], meter: Meter) -> None:
    """Have one thread on each core take the next request of the rotation."""
    order = list(runs)
    tickets = itertools.count()  # taking one is atomic: the cheapest queue that never runs empty
    lock = threading.Lock()

    def serve(core: int) -> None:
        pin_current_thread((core,))
        while not meter.is_over:
            number, index = divmod(next(tickets), len(order))
            runs[order[index]](number)
            with lock:
                meter.note(order[index])

    meter.start()
    _in_threads([lambda core=core: serve(core) for core in available_cores()])


def _in_threads(tasks: Sequence[Callable[[], None]]) -> None:
    failures: list[BaseException] = []

    def guarded(task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as failure:  # noqa: BLE001 - raised again by the main thread
            failures.append(failure)

    threads = [threading.Thread(target=guarded, args=(task,), daemon=True) for task in tasks]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) and not failures:
        for thread in threads:
            thread.join(0.05)
    if failures:
        raise failures[0]


# ONNX Runtime


def onnxruntime_runs(
    networks: Mapping[str, Network], *, threads: int = 0, global_pool: bool = False
) -> dict[str, Run]:
    """Make a session per network. 0 threads is the library's default: one per core."""
    import onnxruntime as ort

    if global_pool:
        ort.set_global_thread_pool_sizes()  # its defaults as well
    runs = {}
    for name, network in networks.items():
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.use_per_session_threads = not global_pool
        session = ort.InferenceSession(network.path, options, providers=["CPUExecutionProvider"])
        runs[name] = _onnxruntime_run(session, network.inputs)
    return runs


def _onnxruntime_run(session: Any, inputs: np.ndarray) -> Run:
    [tensor] = session.get_inputs()
    feeds = [{tensor.name: row[None]} for row in inputs]
    return lambda number: session.run(None, feeds[number % len(feeds)])


# OpenVINO


def openvino_compiled(
    networks: Mapping[str, Network], *, mode: str, precision: str = "f32"
) -> dict[str, Any]:
    """Compile each network with static shapes of batch 1 and a performance hint."""
    import openvino as ov

    core = ov.Core()
    compiled = {}
    for name, network in networks.items():
        graph = core.read_model(network.path)
        graph.reshape([1, *network.inputs.shape[1:]])
        properties = {"PERFORMANCE_HINT": mode, "INFERENCE_PRECISION_HINT": precision}
        compiled[name] = core.compile_model(graph, "CPU", properties)
        hint = compiled[name].get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if hint != precision:
            raise SystemExit(f"OpenVINO was asked for {precision} and computes in {hint}")
    return compiled


def openvino_runs(networks: Mapping[str, Network]) -> dict[str, Run]:
    """Make one request per network, tuned for latency; inputs are shared, not copied."""
    compiled = openvino_compiled(networks, mode="LATENCY")
    return {
        name: _openvino_run(model.create_infer_request(), networks[name].inputs)
        for name, model in compiled.items()
    }


def _openvino_run(request: Any, inputs: np.ndarray) -> Run:
    feeds = [row[None] for row in inputs]
    return lambda number: request.infer([feeds[number % len(feeds)]], share_inputs=True)


def openvino_queues(networks: Mapping[str, Network], meter: Meter, precision: str = "f32") -> None:
    """Feed one AsyncInferQueue per network in rotation; each has its optimal number of requests."""
    from openvino import AsyncInferQueue

    compiled = openvino_compiled(networks, mode="THROUGHPUT", precision=precision)
    lock = threading.Lock()

    def noted(_request: Any, name: str) -> None:
        with lock:
            meter.note(name)

    queues = {name: AsyncInferQueue(model) for name, model in compiled.items()}
    for queue in queues.values():
        queue.set_callback(noted)
    feeds = {name: [row[None] for row in network.inputs] for name, network in networks.items()}
    meter.start()
    for number in itertools.count():
        for name, queue in queues.items():
            # Waits while all requests of this network are busy: so the counts stay equal.
            feed = feeds[name][number % len(feeds[name])]
            queue.start_async([feed], userdata=name, share_inputs=True)
        if meter.is_over:
            break
    for queue in queues.values():
        queue.wait_all()


# the table of peers


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network's file and its prepared inputs, shape (inputs, channels, height, width)."""

    path: str
    inputs: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One way to run the networks.

    Attributes:
        library: What must be installed.
        title: What the table calls it.
        serve: Serves the networks until the meter's window is over.
    """

    library: str
    title: str
    serve: Callable[[Mapping[str, Network], Meter], None]
    precision: str = "fp32"


def _peers() -> dict[str, Peer]:
    ort, ov = "onnxruntime", "openvino"
    peers = {
        "ort-sequence": Peer(
            library=ort,
            title="defaults, in sequence",
            serve=lambda n, m: in_sequence(onnxruntime_runs(n), m),
        ),
        "ort-global-sequence": Peer(
            library=ort,
            title="global pool, in sequence",
            serve=lambda n, m: in_sequence(onnxruntime_runs(n, global_pool=True), m),
        ),
        "ort-workers": Peer(
            library=ort,
            title="1-thread sessions, pinned workers, by hand",
            serve=lambda n, m: pinned_workers(onnxruntime_runs(n, threads=1), m),
        ),
        "ov-sequence": Peer(
            library=ov,
            title="LATENCY, in sequence",
            serve=lambda n, m: in_sequence(openvino_runs(n), m),
        ),
        "ov-throughput": Peer(
            library=ov, title="THROUGHPUT, AsyncInferQueue each", serve=openvino_queues
        ),
        "ov-throughput-bf16": Peer(
            library=ov,
            title="THROUGHPUT, AsyncInferQueue each, bf16",
            serve=lambda n, m: openvino_queues(n, m, precision="bf16"),
            precision="bf16",
        ),
    }
    for lead in LEADS:
        how = f"thread per network, lead {lead}"
        peers |= {
            f"ort-threads-{lead}": Peer(
                library=ort,
                title=f"defaults, {how}",
                serve=lambda n, m, lead=lead: thread_each(onnxruntime_runs(n), m, lead=lead),
            ),
            f"ort-global-threads-{lead}": Peer(
                library=ort,
                title=f"global pool, {how}",
                serve=lambda n, m, lead=lead: thread_each(
                    onnxruntime_runs(n, global_pool=True), m, lead=lead
                ),
            ),
            f"ov-threads-{lead}": Peer(
                library=ov,
                title=f"LATENCY, {how}",
                serve=lambda n, m, lead=lead: thread_each(openvino_runs(n), m, lead=lead),
            ),
        }
    return dict(sorted(peers.items()))


PEERS: Mapping[str, Peer] = _peers()


def main() -> None:
    """Serve and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--warmup", type=float, default=1.0)
    arguments = parser.parse_args()
    networks = {
        path.stem: Network(path=str(path), inputs=np.load(path.with_suffix(".npy")))
        for path in sorted(arguments.folder.glob("*.onnx"))
    }
    meter = Meter(list(networks), warmup_s=arguments.warmup, seconds=arguments.seconds)
    PEERS[arguments.peer].serve(networks, meter)
    print(json.dumps({"counts": meter.counts, "seconds": meter.seconds}))


if __name__ == "__main__":
    main()
