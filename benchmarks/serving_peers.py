"""Other servers for `serving.py`, each in the way that its documentation shows, with raw bodies.

    python benchmarks/serving_peers.py litserve|mosec|ray|mlserver FILE.onnx|null PORT

Runs under an interpreter that has the peer and onnxruntime; coinfer need not be installed. All but
MLServer take the bytes of one float32 tensor and answer with those of one, so that nobody pays for
JSON; MLServer takes the protocol's binary tensors where it knows them, and else its JSON. Each
runs the model with onnxruntime, one session of one thread per worker, as many workers as there are
cores. With `null` the model's part is a copy of the input.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import numpy as np

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

Run = Callable[[bytes], bytes]


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


def litserve(source: str, port: int) -> None:
    from serving_litserve import serve  # its workers import it, so it has a file of its own

    serve(source, port, CORES)


def mosec(source: str, port: int) -> None:
    from serving_mosec import serve  # its workers import it, so it has a file of its own

    serve(source, port, CORES)


def ray(source: str, port: int) -> None:
    from serving_ray import serve_forever

    serve_forever(source, port, CORES)


def mlserver(source: str, port: int) -> None:
    import asyncio

    from mlserver import MLModel, MLServer, ModelSettings, Settings
    from mlserver.codecs import NumpyCodec
    from mlserver.types import InferenceRequest, InferenceResponse

    class Served(MLModel):
        async def load(self) -> bool:
            self.answer = runner(source)
            return True

        async def predict(self, payload: InferenceRequest) -> InferenceResponse:
            x = NumpyCodec.decode_input(payload.inputs[0])
            raw = self.answer(np.ascontiguousarray(x, np.float32).tobytes())
            y = NumpyCodec.encode_output("y", np.frombuffer(raw, np.float32).reshape(1, -1))
            return InferenceResponse(model_name="m", outputs=[y])

    settings = Settings(
        host="127.0.0.1",
        http_port=port,
        grpc_port=port + 1,
        metrics_endpoint=None,
        parallel_workers=0,
    )

    async def serve_forever() -> None:
        server = MLServer(settings)
        await server.start([ModelSettings(name="m", implementation=Served)])

    asyncio.run(serve_forever())


if __name__ == "__main__":
    _, peer, given, at = sys.argv
    {"litserve": litserve, "mosec": mosec, "ray": ray, "mlserver": mlserver}[peer](given, int(at))
