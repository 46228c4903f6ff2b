"""Ray Serve for `serving_peers.py`: the bytes of a tensor in, those of another out."""

import signal
import sys

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

__all__ = ["serve_forever"]


@serve.deployment(max_ongoing_requests=100, ray_actor_options={"num_cpus": 0})
class Served:
    def __init__(self, source: str, folder: str) -> None:
        sys.path.insert(0, folder)
        from serving_peers import runner

        self.run = runner(source)

    async def __call__(self, request: Request) -> Response:
        return Response(self.run(await request.body()))


def serve_forever(source: str, port: int, replicas: int) -> None:
    ray.init(include_dashboard=False, num_cpus=replicas, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    app = Served.options(num_replicas=replicas).bind(source, sys.path[0])
    serve.run(app)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
