"""LitServe for `serving_peers.py`: the bytes of a tensor in, those of another out."""

from typing import Annotated

import litserve as ls
from fastapi import Body, Response

from serving_peers import runner

__all__ = ["serve"]

Raw = Annotated[bytes, Body(media_type="application/octet-stream")]


class Served(ls.LitAPI):
    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source

    def setup(self, device: str) -> None:  # noqa: ARG002 - as of the base class
        self.run = runner(self.source)

    def decode_request(self, request: Raw) -> bytes:
        return request

    def predict(self, x: bytes) -> bytes:
        return self.run(x)

    def encode_response(self, output: bytes) -> Response:
        return Response(content=output, media_type="application/octet-stream")


def serve(source: str, port: int, workers: int) -> None:
    server = ls.LitServer(Served(source), accelerator="cpu", workers_per_device=workers)
    server.run(port=port, host="127.0.0.1", log_level="error", generate_client_file=False)
