"""Fused models against every other way to run M models of one architecture, on one machine.

    python benchmarks/fusion.py [--quick] [--layouts] [--networks lenet cnn ...] [--models 2 8]

M real models with M weights each, and inputs of their own; one round answers one request of each.
Never one session M times: its weights would stay in the cache. Arms: onnxruntime's default sessions
in sequence; the same, each called by a thread of its own; one process per model; one-thread
sessions, one after the other; the same on as many pinned workers as there are cores; OpenVINO
unfused on one thread; the graphs side by side in one (`onnx.compose`); `torch.func` with `vmap` for
the plain networks, where torch is installed; fused by coinfer, on onnxruntime and on OpenVINO, one
thread each; and `auto`, coinfer's engine on all cores. All take turns in each round. Ratios compare
the fused model with the best unfused arm of one thread; `auto` with the best unfused arm of all;
and `auto` with default sessions in sequence, as `coinfer.metrics.paired` does. `--without` leaves
arms out.

`tenants.py` has the same networks under load, in plans that fuse and that do not.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir

from coinfer import zoo
from coinfer.metrics.paired import LEAST_ROUNDS, in_turn
from coinfer.model import Model, model_from_ir
from coinfer.zoo.builder import NetworkBuilder
from coinfer.zoo.transformer import _encoder, _Sizes
from environment import OtherWork, print_environment
from fusion_arms import FUSED, LAYOUTS, MAKERS, UNFUSED, Arm, arms_of
from rounds import ratio_of
from tables import new_console, new_table

ROUND_S = 0.05
"""A round repeats an arm for at least so long."""
REST_S = 0.02
"""Between arms nothing of this process may have computed for so long: each thread of each default
session spins on for 30 ms of its own after a run, on cores that pinned workers need. With sixteen
sessions on two cores that is a quarter of a second."""
AT_REST = 0.05
"""Of a core, at most, is used meanwhile."""

NETWORKS = (
    "lenet",
    "cnn",
    "mlp",
    "squeezenet1_1",
    "mobilenet_v2",
    "encoder",
    "resnet50",
    "resnext50",
)
ONE_THREAD = ("1 thread", "openvino", "compose")


def main() -> int:
    """Measure and print."""
    arguments = _arguments()
    console, log = new_console(), new_console(stderr=True)
    print_environment(console)
    for batch in arguments.batches:
        able = (
            ("1 thread", "openvino", *FUSED, *LAYOUTS) if arguments.layouts else (*MAKERS, "vmap")
        )
        arms = [name for name in able if name not in arguments.without]
        ratios = ["fused / best of 1 thread", "auto / best", "auto / default"]
        table = new_table(["network", "M"], [*arms, *ratios], wraps=True)
        with OtherWork() as other:
            for network in arguments.networks:
                for count in arguments.models:
                    row = _row(network, count, batch, arms, arguments)
                    table.add_row(network, str(count), *row)
                    log.print(f"batch {batch}: {network} x {count}")
        console.print(f"batch {batch}: milliseconds for one request of each of M models")
        console.print(table)
        console.print(other.note)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rows, 9 short rounds")
    parser.add_argument("--networks", choices=NETWORKS, nargs="+", default=list(NETWORKS))
    parser.add_argument("--models", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--without", choices=[*MAKERS, "vmap"], nargs="*", default=[])
    parser.add_argument("--layouts", action="store_true", help="compare what could be chosen")
    parser.add_argument("--rounds", type=int, default=LEAST_ROUNDS)
    parser.add_argument("--seconds", type=float, default=ROUND_S, help="of a round of one arm")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.models, arguments.batches, arguments.seconds = [2, 8, 16], [1], 0.02
        arguments.networks = arguments.networks[:4]
    return arguments


def _row(
    network: str, count: int, batch: int, names: Sequence[str], arguments: argparse.Namespace
) -> list[str]:
    models = [_build(network, seed) for seed in range(count)]
    feeds = [model.sample_inputs(batch=batch, seed=at) for at, model in enumerate(models)]
    makers = arms_of(network)
    arms = {name: makers[name](models, feeds) for name in names if name in makers}
    times: dict[str, list[float]] = {name: [] for name in arms}
    for arm in arms.values():
        _measure(arm, arguments.seconds)
    for _, name in in_turn(arms, arguments.rounds):
        _rest()
        times[name].append(_measure(arms[name], arguments.seconds))
    for arm in arms.values():
        arm.close()
    del arms
    gc.collect()
    middle = {name: statistics.median(each) for name, each in times.items()}

    def ratio(ours: Sequence[str], theirs: Sequence[str]) -> str:
        able = [[name for name in side if name in middle] for side in (ours, theirs)]
        if not all(able):
            return "-"
        one, other = [min(side, key=middle.__getitem__) for side in able]
        return str(ratio_of(times[one], times[other], larger_is_better=False))

    return [
        *(f"{middle[name] * 1e3:.3g}" if name in middle else "-" for name in names),
        ratio(FUSED, ONE_THREAD),
        ratio(["auto"], [*UNFUSED, "vmap"]),
        ratio(["auto"], ["default"]),
    ]


def _rest() -> None:
    """Wait until threads that spin have gone to sleep."""
    used_s = REST_S
    while used_s > AT_REST * REST_S:
        before_s = time.process_time()
        time.sleep(REST_S)
        used_s = time.process_time() - before_s


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
    makers: Mapping[str, Callable[[int], ir.Model]] = {"cnn": cnn, "mlp": mlp, "encoder": encoder}
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


def encoder(seed: int) -> ir.Model:
    """An encoder as all-MiniLM-L6-v2, with fewer words and 16 tokens."""
    net = NetworkBuilder("encoder", seed)
    ids = net.input("input_ids", (16,), ir.DataType.INT64)
    sizes = _Sizes(layers=6, width=384, heads=12, inner=1536, vocabulary=1000, positions=16)
    net.output(_encoder(net, ids, sizes), "last_hidden_state")
    return net.model("MiniLM-shaped")


if __name__ == "__main__":
    sys.exit(main())
