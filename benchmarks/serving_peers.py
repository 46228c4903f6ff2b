"""Other servers for `serving.py`, each in the way that its documentation shows, with raw bodies.

    python benchmarks/serving_peers.py litserve|mosec|ray FILE.onnx|null PORT [BATCH]

Runs under an interpreter that has the peer and onnxruntime; coinfer need not be installed. All
take the bytes of one float32 tensor and answer with those of one, so that nobody pays for JSON.
Each runs the model with onnxruntime, one session of one thread per worker, as many workers as there
are cores. With `null` the model's part is a copy of the input. With BATCH each collects so many
requests at most, for 2 ms at most, and runs them together.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import numpy as np

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

Run = Callable[[bytes], bytes]
RunMany = Callable[[list[bytes]], list[bytes]]

WAIT_S = 0.002
"""For how long a batch is collected: what their documentation shows is 1 to 10 ms."""


def runner(source: str) -> Run:
    """Return what answers one request."""
    if source == "null":
        return bytes
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    [spec] = session.get_inputs()
    shape = [size if isinstance(size, int) else 1 for size in spec.shape]

    def run(body: bytes) -> bytes:
        return session.run(None, {spec.name: np.frombuffer(body, np.float32).reshape(shape)})[
            0
        ].tobytes()

    return run


def runner_of_many(source: str) -> RunMany:
    """Return what answers several requests in one run."""
    if source == "null":
        return list
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    [spec] = session.get_inputs()
    shape = [size if isinstance(size, int) else 1 for size in spec.shape[1:]]

    def run(bodies: list[bytes]) -> list[bytes]:
        x = np.frombuffer(b"".join(bodies), np.float32).reshape(len(bodies), *shape)
        return [row.tobytes() for row in session.run(None, {spec.name: x})[0]]

    return run


def litserve(source: str, port: int, batch: int) -> None:
    from serving_litserve import serve  # its workers import it, so it has a file of its own

    serve(source, port, CORES, batch)


def mosec(source: str, port: int, batch: int) -> None:
    from serving_mosec import serve  # its workers import it, so it has a file of its own

    serve(source, port, CORES, batch)


def ray(source: str, port: int, batch: int) -> None:
    from serving_ray import serve_forever

    serve_forever(source, port, CORES, batch)


if __name__ == "__main__":
    _, peer, given, at, *most = sys.argv
    run = {"litserve": litserve, "mosec": mosec, "ray": ray}[peer]
    run(given, int(at), int(most[0]) if most else 1)
