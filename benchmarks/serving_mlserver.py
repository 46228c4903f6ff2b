"""MLServer for `serving_peers.py`: the Open Inference Protocol over gRPC, with raw tensors.

PyPI has no ONNX runtime for it: this is one of its custom runtimes, as its documentation shows.
Over HTTP it takes tensors as JSON only. MLServer 1.7.1 does not start with uvloop 0.22 or later.
"""

from __future__ import annotations

import asyncio
import socket

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from serving_peers import WAIT_S, Batch, Network

__all__ = ["Served", "serve"]


class Served(MLModel):  # type: ignore[misc]  # its types are not known here
    async def load(self) -> bool:
        source = self.settings.parameters.uri
        self.network = None if source == "null" else Network(source)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        y = NumpyCodec.decode_input(payload.inputs[0])
        if self.network is not None:
            y = self.network.session.run(None, {self.network.spec.name: y})[0]
        outputs = [NumpyCodec.encode_output("y", y)]
        return InferenceResponse(model_name=self.name, outputs=outputs)


def serve(source: str, port: int, workers: int, batch: Batch) -> None:
    assert isinstance(batch, int), "several models at a time are not asked of MLServer here"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        http_port = free.getsockname()[1]
    settings = Settings(
        host="127.0.0.1",
        http_port=http_port,
        grpc_port=port,
        metrics_endpoint=None,
        parallel_workers=workers,
        debug=False,
    )
    together = {} if batch == 1 else {"max_batch_size": batch, "max_batch_time": WAIT_S}
    model = ModelSettings(
        name="m",
        implementation="serving_mlserver.Served",
        parameters={"uri": source},
        **together,
    )

    async def start() -> None:
        await MLServer(settings).start([model])  # made in the loop, which it looks for

    asyncio.run(start())
