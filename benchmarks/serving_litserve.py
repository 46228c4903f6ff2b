"""LitServe for `serving_peers.py`: the bytes of a tensor in, those of another out."""

from typing import Annotated

import litserve as ls
from fastapi import Body, Response

from serving_peers import WAIT_S, Batch, runner, runner_of_many, sources

__all__ = ["serve"]

Raw = Annotated[bytes, Body(media_type="application/octet-stream")]


class Served(ls.LitAPI):
    def __init__(self, path: str, source: str) -> None:
        super().__init__(api_path=path or "/predict")
        self.source = source

    def setup(self, device: str) -> None:  # noqa: ARG002 - as of the base class
        self.run = runner(self.source)

    def decode_request(self, request: Raw) -> bytes:
        return request

    def predict(self, x: bytes) -> bytes:
        return self.run(x)

    def encode_response(self, output: bytes) -> Response:
        return Response(content=output, media_type="application/octet-stream")


class ServedTogether(ls.LitAPI):
    def __init__(self, path: str, source: str, batch: int) -> None:
        path = path or "/predict"
        super().__init__(api_path=path, max_batch_size=batch, batch_timeout=WAIT_S)
        self.source = source

    def setup(self, device: str) -> None:  # noqa: ARG002 - as of the base class
        self.run = runner_of_many(self.source)

    def decode_request(self, request: Raw) -> bytes:
        return request

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        return inputs

    def predict(self, x: list[bytes]) -> list[bytes]:
        return self.run(x)

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        return output

    def encode_response(self, output: bytes) -> Response:
        return Response(content=output, media_type="application/octet-stream")


def serve(source: str, port: int, workers: int, batch: Batch) -> None:
    apis = [
        Served(path, file) if most == 1 else ServedTogether(path, file, most)
        for path, file, most in sources(source, batch)
    ]
    server = ls.LitServer(apis, accelerator="cpu", workers_per_device=workers)
    server.run(port=port, host="127.0.0.1", log_level="error", generate_client_file=False)
