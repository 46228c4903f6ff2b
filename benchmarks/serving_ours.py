"""coinfer's server for `serving.py`, and the same stack returning a constant.

    python benchmarks/serving_ours.py coinfer|apart null|FILE.onnx|FOLDER PORTS-FILE
    python benchmarks/serving_ours.py constant BYTES PORTS-FILE

`null` is the null backend with an answer of 1 KiB. It prints `ready` and serves until it is ended.
With `apart` each request is a run of its own. Of a folder all models are served, by an engine on
ONNX Runtime alone. With `engine` for `coinfer`, nothing is served: it
prints the seconds of `Engine.infer`.
"""

from __future__ import annotations

import asyncio
import json
import signal
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

import coinfer
from batching_ways import engine_of_all
from coinfer.backends import heap
from coinfer.machine.processor import WAKE_S
from coinfer.model import Model, load_model
from coinfer.server.front_end import FrontEnds
from coinfer.server.handover import Handover
from coinfer.server.listening import bound_socket
from coinfer.server.opening import Opened
from coinfer.server.served_model import served
from coinfer.server.serving import ServeOptions, Server
from coinfer.testing.models import model_from_text

ROUND_TRIPS = 3000


def model_of(source: str) -> Model:
    if source != "null":
        return load_model(source, name="m")
    text = "agraph (float[N,256] x) => (float[N,256] y) { y = Relu(x) }"
    return model_from_text(text, name="m")


def engine_of(source: str, model: Model, batch: str = "auto") -> coinfer.Engine:
    if source != "null":
        return coinfer.Engine({"m": model}, batch=batch)
    processors = [
        coinfer.Processor(
            name=f"p{n}", backend="null", units=frozenset({f"core{n}"}), wake_s=WAKE_S
        )
        for n in range(2)
    ]
    profile = coinfer.Profile.from_seconds({"m": {"p0": 1e-5, "p1": 1e-5}})
    return coinfer.Engine({"m": model}, processors=processors, profile=profile)


def wait_for(ended: threading.Event) -> None:
    """Serve, as `coinfer serve` does: no full collection looks through the libraries.

    It waits with looks in between: a signal may reach another thread, and this one sleeps on.
    """
    with heap.settled():
        print("ready", flush=True)
        while not ended.wait(0.5):
            pass


class Constant:
    """The same event loop, HTTP server and gRPC server, without a service behind them."""

    def __init__(self, size: int) -> None:
        self.body = bytes(size)
        self.bound = bound_socket("127.0.0.1", 0, "constant")
        self.ports = {"http": self.bound.getsockname()[1]}
        self.front_ends = FrontEnds([self])

    async def start(self, _handover: Handover) -> None:
        import grpc.aio
        import uvicorn

        options: dict[str, Any] = {"interface": "asgi3", "loop": "none", "http": "httptools"}
        options |= {"ws": "none"}
        options |= {"lifespan": "off", "log_config": None, "access_log": False}
        options |= {"server_header": False, "date_header": False, "proxy_headers": False}
        config = uvicorn.Config(self.answer, **options)
        config.load()
        self.serving = asyncio.create_task(uvicorn.Server(config).serve(sockets=[self.bound]))
        self.grpc = grpc.aio.server()
        self.ports["grpc"] = self.grpc.add_insecure_port("127.0.0.1:0")
        method = grpc.unary_unary_rpc_method_handler(self.call)
        handlers = {"ModelInfer": method}
        service = "inference.GRPCInferenceService"
        self.grpc.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, handlers),)
        )
        await self.grpc.start()

    async def stop(self, grace_s: float) -> None:
        await self.grpc.stop(grace_s)
        self.serving.cancel()

    def attend(self, _attend: object) -> None:
        """Nothing is run."""

    async def call(self, _request: bytes, _context: object) -> bytes:
        return self.body

    async def answer(self, _scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        length = str(len(self.body)).encode()
        headers = [(b"content-type", b"application/octet-stream"), (b"content-length", length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


def main() -> None:
    kind, source, ports_file = sys.argv[1:]
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    if kind == "constant":
        constant = Constant(int(source))
        constant.front_ends.start()
        Path(ports_file).write_text(json.dumps(constant.ports))
        wait_for(ended)
        constant.front_ends.stop(0.1)
        constant.bound.close()
        return
    if kind == "engine":
        print(json.dumps(engine_seconds(source, model_of(source))))
        return
    batch = "off" if kind == "apart" else "auto"
    with Server(ServeOptions(http=0, grpc=0)) as server:
        if Path(source).is_dir():
            models = {each.stem: load_model(each) for each in sorted(Path(source).glob("*.onnx"))}
            engine = engine_of_all(models, batch)
        else:
            models = {"m": model_of(source)}
            engine = engine_of(source, models["m"], batch)
        server.open(Opened(engine=engine, models=[served(n, m) for n, m in models.items()]))
        Path(ports_file).write_text(json.dumps(server.ports))
        wait_for(ended)


def engine_seconds(source: str, model: Model) -> float:
    """Return the median of a round trip through the engine alone, from a thread of its own."""
    inputs = model.sample_inputs()
    taken: list[float] = []
    with engine_of(source, model) as engine:

        def ask() -> None:
            for _ in range(ROUND_TRIPS):
                began_s = time.perf_counter()
                engine.submit("m", inputs).result()
                taken.append(time.perf_counter() - began_s)

        asking = threading.Thread(target=ask)
        asking.start()
        asking.join()
    return statistics.median(taken[ROUND_TRIPS // 10 :])


if __name__ == "__main__":
    main()
