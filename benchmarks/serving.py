"""What serving costs: coinfer over HTTP and gRPC beside other servers, and beside a constant.

    python benchmarks/serving.py [--quick] [--models null lenet] [--peers litserve mosec ray]
        [--python PYTHON] [--concurrency 1 16] [--seconds 3] [--rounds 9] [--batch 16]

All servers run at once and are asked in turn, in rounds, so that drift of the machine hits all;
those that are not asked do nothing. The client is a process of its own on the same machine: it
takes a part of the cores, the same for all. `null` is coinfer's null backend with 1 KiB each way,
beside the same event loop, HTTP server and gRPC server answering a constant of the same length.
What coinfer adds to `Engine.submit` is measured at one connection, beside the engine alone in the
same round.

With `--batch` the peers collect so many requests at most, for 2 ms at most, in the way that their
documentation shows, and coinfer is there twice: with `batch: auto` and with `batch: off`. `dense`
is the network of `batching.py` that gains by it.

PYTHON is an interpreter that has the peers
(`pip install litserve mosec 'ray[serve]' mlserver 'uvloop<0.22' onnxruntime`).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from environment import OtherWork, print_environment
from requirement import Requirement, print_requirements
from rounds import Ratio, output_of, ratio_of
from tables import new_console, new_table

HERE = Path(__file__).parent
START_S, END_S = 120.0, 15.0
SHAPES = {
    "null": (1, 256),
    "dense": (1, 1024),
    "lenet": (1, 1, 32, 32),
    "mobilenet_v2": (1, 3, 224, 224),
}
MOST_ADDED_MS, LEAST_OF_CONSTANT, LEAST_OF_PEERS = 0.5, 0.4, 3.0
MUST_BE_BEATEN = ("litserve", "ray")


@dataclass(frozen=True)
class Target:
    """What is asked.

    Attributes:
        name: Of the contestant.
        words: The client's: protocol, port, path, file of the body, headers.
    """

    name: str
    words: tuple[str, ...]


def main() -> int:
    """Measure and print; the exit status is 1 if a requirement is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two short rounds, no claims")
    parser.add_argument("--models", nargs="+", default=["null", "lenet"], choices=SHAPES)
    parser.add_argument("--peers", nargs="*", default=[])
    parser.add_argument("--python", default=sys.executable, help="an interpreter with the peers")
    parser.add_argument("--concurrency", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=1, help="requests that the peers collect")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # or the contestants would stay
    rounds, seconds = (2, 0.5) if given.quick else (given.rounds, given.seconds)
    console, requirements = new_console(), list[Requirement]()
    print_environment(console)
    with OtherWork() as other, tempfile.TemporaryDirectory() as folder:
        for model in given.models:
            asked = Measured(Path(folder), model, given.python, given.peers, given.batch)
            with asked.running():
                for concurrency in given.concurrency:
                    asked.measure(concurrency, seconds, rounds)
                    console.print(asked.table(concurrency))
                    requirements += asked.requirements(concurrency)
    console.print(other.note)
    return print_requirements(console, requirements)


class Measured:
    """One model, behind all contestants."""

    def __init__(
        self, folder: Path, model: str, python: str, peers: list[str], batch: int = 1
    ) -> None:
        self.folder, self.model, self.python, self.peers = folder, model, python, peers
        self.source, self.batch = "null", batch
        if model != "null":
            import onnx_ir

            from batching_networks import network
            from coinfer import zoo

            file = folder / f"{model}.onnx"
            graph = network(model).graph if model == "dense" else zoo.build(model, seed=0)
            onnx_ir.save(graph, file)
            self.source = str(file)
        self.targets: list[Target] = []
        self.found: dict[str, list[dict[str, float]]] = {}
        self.engine_s: list[float] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Keep all contestants running."""
        array = np.random.default_rng(0).standard_normal(SHAPES[self.model], dtype=np.float32)
        raw = self.folder / "raw.bin"
        raw.write_bytes(array.tobytes())
        http_body, length, grpc_body = bodies(self.folder, self.model, self.source, array)
        headers = json.dumps({"Inference-Header-Content-Length": str(length)})
        path = "/v2/models/m/infer"
        call = "/inference.GRPCInferenceService/ModelInfer"
        with ExitStack() as stack:
            ports = stack.enter_context(ours(self.folder, "coinfer", self.source))
            self.targets = [
                Target("coinfer HTTP", ("http", str(ports["http"]), path, str(http_body), headers)),
                Target("coinfer gRPC", ("grpc", str(ports["grpc"]), call, str(grpc_body), "{}")),
            ]
            if self.batch > 1:
                ports = stack.enter_context(ours(self.folder, "apart", self.source))
                said = ("http", str(ports["http"]), path, str(http_body), headers)
                self.targets.append(Target("coinfer HTTP, batch off", said))
            if self.model == "null":
                size = str(array.nbytes)
                ports = stack.enter_context(ours(self.folder, "constant", size))
                self.targets += [
                    Target(
                        "constant HTTP", ("http", str(ports["http"]), path, str(http_body), headers)
                    ),
                    Target(
                        "constant gRPC", ("grpc", str(ports["grpc"]), call, str(grpc_body), "{}")
                    ),
                ]
            for peer in self.peers:
                port = stack.enter_context(running_peer(self.python, peer, self.source, self.batch))
                if peer == "mlserver":  # over HTTP it takes JSON only
                    words = ("grpc", str(port), call, str(grpc_body), "{}")
                    self.targets.append(Target(peer, words))
                    continue
                at, body, said = "/", raw, "{}"
                if peer in ("litserve", "mosec"):
                    at = {"litserve": "/predict", "mosec": "/inference"}[peer]
                    said = '{"Content-Type": "application/octet-stream"}'
                self.targets.append(Target(peer, ("http", str(port), at, str(body), said)))
            yield

    def measure(self, concurrency: int, seconds: float, rounds: int) -> None:
        """Ask each in turn."""
        self.found = {target.name: [] for target in self.targets}
        self.engine_s = []
        for number in range(rounds):
            in_turn = self.targets if number % 2 == 0 else self.targets[::-1]
            for target in in_turn:
                command = [sys.executable, HERE / "serving_client.py", *target.words]
                said = json.loads(output_of([*command, concurrency, seconds]))
                if "error" in said:
                    raise SystemExit(f"{target.name}: {said['error']}")
                self.found[target.name].append(said)
            if concurrency == 1:
                program = HERE / "serving_ours.py"
                said = output_of([sys.executable, program, "engine", self.source, "-"])
                self.engine_s.append(float(said.splitlines()[-1]))

    def table(self, concurrency: int) -> object:
        """Return the table of what was found."""
        table = new_table(
            (f"{self.model}, {concurrency} at a time",),
            ("requests/s", "p50 ms", "p99 ms", "coinfer HTTP is", "coinfer gRPC is"),
        )
        for name, found in self.found.items():
            row = [
                f"{statistics.median(each[key] for each in found):.{digits}f}"
                for key, digits in (("per_s", 0), ("p50_ms", 3), ("p99_ms", 3))
            ]
            ratios = [
                "" if name.startswith("coinfer") else str(self.ratio(f"coinfer {kind}", name))
                for kind in ("HTTP", "gRPC")
            ]
            table.add_row(name, *row, *ratios)
        if self.engine_s:
            table.add_row("Engine.submit", "", f"{statistics.median(self.engine_s) * 1e3:.3f}")
        return table

    def ratio(self, name: str, other: str) -> Ratio:
        """How many times as many requests per second."""
        per_s = [[each["per_s"] for each in self.found[who]] for who in (name, other)]
        return ratio_of(*per_s, larger_is_better=True)

    def requirements(self, concurrency: int) -> list[Requirement]:
        """Return what must be reached."""
        made = []
        for kind in ("HTTP", "gRPC"):
            name = f"coinfer {kind}"
            where = f"{self.model}, {concurrency} at a time"
            if self.engine_s:
                added = statistics.median(
                    each["p50_ms"] - engine_s * 1e3
                    for each, engine_s in zip(self.found[name], self.engine_s, strict=True)
                )
                made.append(
                    Requirement(
                        what=f"{where}: what {kind} adds to Engine.submit (p50)",
                        value=added,
                        required=MOST_ADDED_MS,
                        at_most=True,
                        unit=" ms",
                    )
                )
            if self.model == "null" and concurrency > 1:
                ratio = self.ratio(name, f"constant {kind}")
                made.append(
                    Requirement(
                        what=f"{where}: {kind}, requests/s of the constant's",
                        value=ratio.median,
                        required=LEAST_OF_CONSTANT,
                        remark=ratio.bounds,
                    )
                )
        for peer in MUST_BE_BEATEN:
            if peer in self.peers and self.model == "lenet" and concurrency > 1:
                ratio = self.ratio("coinfer HTTP", peer)
                made.append(
                    Requirement(
                        what=f"lenet, {concurrency} at a time: requests/s of {peer}'s",
                        value=ratio.median,
                        required=LEAST_OF_PEERS,
                        remark=ratio.bounds,
                    )
                )
        return made


def bodies(folder: Path, model: str, source: str, array: np.ndarray) -> tuple[Path, int, Path]:
    """Write the request for HTTP and gRPC; return the files and the length of HTTP's JSON."""
    import onnx

    from coinfer.server.messages import INFERENCE

    name = "x" if source == "null" else onnx.load(source).graph.input[0].name
    tensor = {"name": name, "datatype": "FP32", "shape": array.shape}
    tensor["parameters"] = {"binary_data_size": array.nbytes}
    said = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
    head = json.dumps(said).encode()
    over_http, over_grpc = folder / f"{model}.http", folder / f"{model}.grpc"
    over_http.write_bytes(head + array.tobytes())
    message = INFERENCE["ModelInferRequest"](model_name="m")
    message.inputs.add(name=name, datatype="FP32", shape=array.shape)
    message.raw_input_contents.append(array.tobytes())
    over_grpc.write_bytes(message.SerializeToString())
    return over_http, len(head), over_grpc


@contextmanager
def ours(folder: Path, kind: str, source: str) -> Iterator[dict[str, int]]:
    """Run coinfer's server or the constant; yields its ports."""
    file = folder / f"{kind}.json"
    program = HERE / "serving_ours.py"
    command = [sys.executable, str(program), kind, source, str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline().strip() != "ready":
                raise SystemExit(f"{kind} did not start")
            yield json.loads(file.read_text())
        finally:
            end(process, f"coinfer's server ({kind})", process.send_signal)


@contextmanager
def running_peer(python: str, peer: str, source: str, batch: object = 1) -> Iterator[int]:
    """Run a peer in a group of processes of its own; yields its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [python, str(HERE / "serving_peers.py"), peer, source, str(port), str(batch)]
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True) as process,
    ):
        try:
            until_s = time.monotonic() + START_S
            while not _takes(port):
                if process.poll() is not None or time.monotonic() > until_s:
                    log.seek(0)
                    raise SystemExit(f"{peer} did not start:\n{log.read()[-2000:]}")
                time.sleep(0.2)
            time.sleep(2.0)  # workers that are started behind the port
            yield port
        finally:
            end(process, peer, lambda number: os.killpg(process.pid, number))


def end(
    process: subprocess.Popen[Any],
    name: str,
    send: Callable[[signal.Signals], None],
    patience_s: float = END_S,
) -> None:
    """Ask a server to end; kill it if it has not by then, and say so.

    Args:
        process: It.
        name: What it is called.
        send: Sends it a signal.
        patience_s: For how long it is waited for.
    """
    started: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        started = psutil.Process(process.pid).children(recursive=True)
    with suppress(ProcessLookupError):
        send(signal.SIGTERM)
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        print(
            f"{name} did not end within {patience_s:g} s of being asked to, and was killed",
            file=sys.stderr,
            flush=True,
        )
        with suppress(ProcessLookupError):
            send(signal.SIGKILL)
        process.wait()
    for each in psutil.wait_procs(started, 1.0)[1]:  # in groups of their own, as Ray's are
        with suppress(psutil.NoSuchProcess):
            each.kill()


def _takes(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=0.5).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
