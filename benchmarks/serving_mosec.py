"""mosec for `serving_peers.py`: the bytes of a tensor in, those of another out."""

from __future__ import annotations

import os
import sys

from mosec import Runtime, Server, Worker

from serving_peers import WAIT_S, Batch, runner, runner_of_many, sources

__all__ = ["serve"]

SOURCE = "COINFER_BENCHMARK_SOURCE"


class Served(Worker):
    def __init__(self) -> None:
        self.run = runner(os.environ[SOURCE])

    def deserialize(self, data: bytes) -> bytes:
        return data

    def serialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: bytes) -> bytes:
        return self.run(data)


class ServedTogether(Served):
    def __init__(self) -> None:
        self.run_many = runner_of_many(os.environ[SOURCE])

    def forward(self, data: list[bytes]) -> list[bytes]:  # type: ignore[override]
        return self.run_many(data)


def serve(source: str, port: int, workers: int, batch: Batch) -> None:
    sys.argv = ["mosec", "--port", str(port), "--address", "127.0.0.1", "--log-level", "error"]
    routes = {}
    for path, file, most in sources(source, batch):
        given = [{SOURCE: file}] * workers
        if most == 1:
            stage = Runtime(Served, num=workers, env=given)
        else:
            waits = {"max_batch_size": most, "max_wait_time": int(WAIT_S * 1000)}
            stage = Runtime(ServedTogether, num=workers, env=given, **waits)
        routes[path or "/inference"] = [stage]
    server = Server()
    server.register_runtime(routes)
    server.run()
