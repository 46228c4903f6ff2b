"""mosec for `serving_peers.py`: the bytes of a tensor in, those of another out."""

from __future__ import annotations

import os
import sys

from mosec import Server, Worker

from serving_peers import runner

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


def serve(source: str, port: int, workers: int) -> None:
    os.environ[SOURCE] = source
    sys.argv = ["mosec", "--port", str(port), "--address", "127.0.0.1", "--log-level", "error"]
    server = Server()
    server.append_worker(Served, num=workers)
    server.run()
