"""Fused models against every other way to run M models of one architecture, on one machine.

    python benchmarks/fusion.py [--quick] [--networks lenet cnn ...] [--models 2 8] [--batches 1 4]

M real models with M weights each, and inputs of their own; one round answers one request of each.
Never one session M times: its weights would stay in the cache. Arms: onnxruntime's default sessions
in sequence; one-thread sessions, one after the other on one pinned core; the same on as many pinned
workers as there are cores; OpenVINO unfused on one thread; the graphs side by side in one
(`onnx.compose`); fused by coinfer, on onnxruntime and on OpenVINO, one thread each. All take turns
in each round. Ratios compare the fused model with the best unfused arm of one thread, and with
default sessions in sequence, as `coinfer.metrics.paired` does.

`tenants.py` has the same networks under load, in plans that fuse and that do not.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnx_ir as ir

import coinfer
from coinfer import zoo
from coinfer.metrics.paired import LEAST_ROUNDS, in_turn
from coinfer.model import Model, model_from_ir
from coinfer.threads.pinning import pin_current_thread
from coinfer.zoo.builder import NetworkBuilder
from environment import OtherWork, print_environment
from rounds import ratio_of
from tables import new_console, new_table

ROUND_S = 0.05
"""A round repeats an arm for at least so long."""

NETWORKS = ("lenet", "cnn", "mlp", "squeezenet1_1", "mobilenet_v2")
UNFUSED = ("ort 1 thread", "ov 1 thread", "compose")
FUSED = ("fused ort", "fused ov")


class Arm(NamedTuple):
    """One way to answer a request of each model."""

    run: Callable[[], object]
    close: Callable[[], object]


def main() -> int:
    """Measure and print."""
    arguments = _arguments()
    console, log = new_console(), new_console(stderr=True)
    print_environment(console)
    for batch in arguments.batches:
        table = new_table(["network", "M"], [*_ARMS, "fused / best", "fused / default"], wraps=True)
        with OtherWork() as other:
            for network in arguments.networks:
                for count in arguments.models:
                    table.add_row(network, str(count), *_row(network, count, batch, arguments))
                    log.print(f"batch {batch}: {network} x {count}")
        console.print(f"batch {batch}: milliseconds for one request of each of M models")
        console.print(table)
        console.print(other.note)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rows, 9 short rounds")
    parser.add_argument("--networks", choices=NETWORKS, nargs="+", default=list(NETWORKS))
    parser.add_argument("--models", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=LEAST_ROUNDS)
    parser.add_argument("--seconds", type=float, default=ROUND_S, help="of a round of one arm")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.models, arguments.batches, arguments.seconds = [2, 8, 16], [1], 0.02
        arguments.networks = arguments.networks[:4]
    return arguments


def _row(network: str, count: int, batch: int, arguments: argparse.Namespace) -> list[str]:
    models = [_build(network, seed) for seed in range(count)]
    feeds = [model.sample_inputs(batch=batch, seed=at) for at, model in enumerate(models)]
    arms = {name: make(models, feeds) for name, make in _ARMS.items()}
    times: dict[str, list[float]] = {name: [] for name in arms}
    for arm in arms.values():
        _measure(arm, arguments.seconds)
    for _, name in in_turn(arms, arguments.rounds):
        times[name].append(_measure(arms[name], arguments.seconds))
    for arm in arms.values():
        arm.close()
    del arms
    gc.collect()
    middle = {name: statistics.median(each) for name, each in times.items()}
    unfused, fused = min(UNFUSED, key=middle.__getitem__), min(FUSED, key=middle.__getitem__)
    best = ratio_of(times[fused], times[unfused], larger_is_better=False)
    default = ratio_of(times[fused], times["ort default"], larger_is_better=False)
    return [*(f"{each * 1e3:.3g}" for each in middle.values()), str(best), f"{default.median:.2f}x"]


def _measure(arm: Arm, seconds: float) -> float:
    start, runs = time.perf_counter(), 0
    while True:
        arm.run()
        runs += 1
        elapsed = time.perf_counter() - start
        if elapsed >= seconds:
            return elapsed / runs


# networks


def _build(network: str, seed: int) -> Model:
    makers: Mapping[str, Callable[[int], ir.Model]] = {"cnn": cnn, "mlp": mlp}
    graph = makers[network](seed) if network in makers else zoo.build(network, seed=seed)
    return model_from_ir(graph, name=f"m{seed}")


def cnn(seed: int) -> ir.Model:
    """Four convolutions of 32 channels on 32x32 pixels, pooled twice."""
    net = NetworkBuilder("cnn", seed)
    x = net.input("image", (3, 32, 32), ir.DataType.FLOAT)
    for at in range(4):
        stride = 2 if at in (1, 3) else 1
        x = net.conv(x, 32, kernel=3, stride=stride, padding=1, name=f"conv{at}")
        x = net.relu(x, name=f"relu{at}")
    net.classifier(x, 10, name="fc")
    return net.model("a small CNN")


def mlp(seed: int) -> ir.Model:
    """Three dense layers of 256."""
    net = NetworkBuilder("mlp", seed)
    x = net.input("x", (256,), ir.DataType.FLOAT)
    for at in range(3):
        x = net.relu(net.gemm(x, 256, name=f"fc{at}"), name=f"relu{at}")
    net.output(net.gemm(x, 10, name="head"), "logits")
    return net.model("a small perceptron")


# arms

_Feeds = Sequence[Mapping[str, np.ndarray[Any, Any]]]


def _session(data: bytes, threads: int) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    if threads:
        options.intra_op_num_threads = options.inter_op_num_threads = threads
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _sequence(threads: int) -> Callable[[Sequence[Model], _Feeds], Arm]:
    def make(models: Sequence[Model], feeds: _Feeds) -> Arm:
        pairs = [(_session(m.to_bytes(), threads), f) for m, f in zip(models, feeds, strict=True)]

        def run() -> None:
            for session, feed in pairs:
                session.run(None, feed)

        return Arm(run, pairs.clear)

    return make


def _workers(models: Sequence[Model], feeds: _Feeds) -> Arm:
    """One-thread sessions, dealt to as many pinned workers as there are cores."""
    cores = sorted(os.sched_getaffinity(0))
    pairs = [(_session(m.to_bytes(), 1), f) for m, f in zip(models, feeds, strict=True)]
    pools = [
        ThreadPoolExecutor(1, initializer=pin_current_thread, initargs=([core],)) for core in cores
    ]

    def share(at: int) -> None:
        for session, feed in pairs[at :: len(cores)]:
            session.run(None, feed)

    def run() -> None:
        for done in [pool.submit(share, at) for at, pool in enumerate(pools)]:
            done.result()

    def close() -> None:
        for pool in pools:
            pool.shutdown()

    return Arm(run, close)


def _openvino_request(data: bytes, feed: Mapping[str, np.ndarray[Any, Any]]) -> Any:
    """Load with fixed shapes: with open ones, OpenVINO is slower."""
    import openvino as ov

    settings = {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    core = ov.Core()
    model = core.read_model(data)
    model.reshape({name: list(array.shape) for name, array in feed.items()})
    return core.compile_model(model, "CPU", settings).create_infer_request()


def _openvino(models: Sequence[Model], feeds: _Feeds) -> Arm:
    pairs = [(_openvino_request(m.to_bytes(), f), f) for m, f in zip(models, feeds, strict=True)]

    def run() -> None:
        for request, feed in pairs:
            request.infer(feed, share_inputs=True, share_outputs=True)

    return Arm(run, pairs.clear)


def _composed(models: Sequence[Model], feeds: _Feeds) -> Arm:
    whole, inputs = None, {}
    for model, feed in zip(models, feeds, strict=True):
        part = onnx.ModelProto.FromString(model.to_bytes())
        del part.metadata_props[:]
        part = onnx.compose.add_prefix(part, f"{model.name}_", rename_inputs=True)
        inputs |= {f"{model.name}_{name}": array for name, array in feed.items()}
        whole = part if whole is None else onnx.compose.merge_models(whole, part, io_map=[])
    assert whole is not None
    session = _session(whole.SerializeToString(), 1)
    return Arm(lambda: session.run(None, inputs), lambda: None)


def _fused(models: Sequence[Model], feeds: _Feeds) -> Arm:
    fused = coinfer.fuse(models)
    session, inputs = _session(fused.model.to_bytes(), 1), fused.inputs_of(feeds)
    return Arm(lambda: session.run(None, inputs), lambda: None)


def _fused_openvino(models: Sequence[Model], feeds: _Feeds) -> Arm:
    fused = coinfer.fuse(models)
    inputs = fused.inputs_of(feeds)
    request = _openvino_request(fused.model.to_bytes(), inputs)
    return Arm(lambda: request.infer(inputs, share_inputs=True, share_outputs=True), lambda: None)


_ARMS: Mapping[str, Callable[[Sequence[Model], _Feeds], Arm]] = {
    "ort default": _sequence(0),
    "ort 1 thread": _sequence(1),
    "ort workers": _workers,
    "ov 1 thread": _openvino,
    "compose": _composed,
    "fused ort": _fused,
    "fused ov": _fused_openvino,
}


if __name__ == "__main__":
    sys.exit(main())
