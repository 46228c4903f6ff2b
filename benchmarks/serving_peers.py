"""Other servers for `serving.py`, each in the way that its documentation shows, with raw bodies.

    python benchmarks/serving_peers.py litserve|mlserver|mosec|ray SOURCE PORT [BATCH]

SOURCE is FILE.onnx, FOLDER or null.

Runs under an interpreter that has the peer and onnxruntime; coinfer need not be installed. All
take the bytes of one tensor and answer with those of one, so that nobody pays for JSON; MLServer
takes them in a message of the Open Inference Protocol over gRPC.
Each runs the model with onnxruntime, one session of one thread per worker, as many workers as there
are cores. With `null` the model's part is a copy of the input. With BATCH each collects so many
requests at most, for 2 ms at most, and runs them together. A folder of models instead of a file is
served at `/NAME` each; BATCH is then a JSON object by name.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

Batch = int | dict[str, int]
"""Requests that are collected at most; where there are several models, by name."""

Run = Callable[[bytes], bytes]
RunMany = Callable[[list[bytes]], list[bytes]]

WAIT_S = 0.002
"""For how long a batch is collected: what their documentation shows is 1 to 10 ms."""


def sources(source: str, batch: Batch) -> list[tuple[str, str, int]]:
    """Return of each model its path on the server, its file, and its largest batch."""
    if not Path(source).is_dir():
        assert isinstance(batch, int)
        return [("", source, batch)]
    assert not isinstance(batch, int)
    return [(f"/{name}", str(Path(source) / f"{name}.onnx"), n) for name, n in batch.items()]


class Network:
    """A session of one thread, and how bytes become its input.

    Where sizes beside the first are open, a body begins with them, in 32 bits each.
    """

    def __init__(self, source: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(source, options, providers=providers)
        [self.spec] = self.session.get_inputs()
        self.sizes = self.spec.shape[1:]
        self.open = 4 * sum(not isinstance(size, int) for size in self.sizes)
        self.dtype = np.int64 if "int64" in self.spec.type else np.float32

    def run(self, count: int, head: bytes, data: bytes) -> np.ndarray:
        """Run so many samples of equal sizes."""
        given = iter(np.frombuffer(head, np.int32).tolist())
        shape = [size if isinstance(size, int) else next(given) for size in self.sizes]
        x = np.frombuffer(data, self.dtype).reshape(count, *shape)
        found: np.ndarray = self.session.run(None, {self.spec.name: x})[0]
        return found


def runner(source: str) -> Run:
    """Return what answers one request."""
    if source == "null":
        return bytes
    network = Network(source)

    def run(body: bytes) -> bytes:
        return network.run(1, body[: network.open], body[network.open :]).tobytes()

    return run


def runner_of_many(source: str) -> RunMany:
    """Return what answers several requests: those of equal sizes in one run."""
    if source == "null":
        return list
    network = Network(source)

    def run(bodies: list[bytes]) -> list[bytes]:
        alike: dict[bytes, list[int]] = {}
        for at, body in enumerate(bodies):
            alike.setdefault(bytes(body[: network.open]), []).append(at)
        answers = [b""] * len(bodies)
        for head, places in alike.items():
            data = b"".join([bodies[at][network.open :] for at in places])
            for at, row in zip(places, network.run(len(places), head, data), strict=True):
                answers[at] = row.tobytes()
        return answers

    return run


def litserve(source: str, port: int, batch: Batch) -> None:
    from serving_litserve import serve  # its workers import it, so it has a file of its own

    serve(source, port, CORES, batch)


def mlserver(source: str, port: int, batch: Batch) -> None:
    from serving_mlserver import serve  # its workers import it, so it has a file of its own

    serve(source, port, CORES, batch)


def mosec(source: str, port: int, batch: Batch) -> None:
    from serving_mosec import serve  # its workers import it, so it has a file of its own

    serve(source, port, CORES, batch)


def ray(source: str, port: int, batch: Batch) -> None:
    from serving_ray import serve_forever

    serve_forever(source, port, CORES, batch)


if __name__ == "__main__":
    _, peer, given, at, *most = sys.argv
    run = {"litserve": litserve, "mlserver": mlserver, "mosec": mosec, "ray": ray}[peer]
    run(given, int(at), json.loads(most[0]) if most else 1)
