"""mosec for `serving_peers.py`: the bytes of a tensor in, those of another out."""

from __future__ import annotations

import os
import sys

from mosec import Server, Worker

from serving_peers import WAIT_S, runner, runner_of_many

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


def serve(source: str, port: int, workers: int, batch: int) -> None:
    os.environ[SOURCE] = source
    sys.argv = ["mosec", "--port", str(port), "--address", "127.0.0.1", "--log-level", "error"]
    server = Server()
    if batch == 1:
        server.append_worker(Served, num=workers)
    else:
        waits = {"max_batch_size": batch, "max_wait_time": int(WAIT_S * 1000)}
        server.append_worker(ServedTogether, num=workers, **waits)
    server.run()
