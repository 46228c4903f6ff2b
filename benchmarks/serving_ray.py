"""Ray Serve for `serving_peers.py`: the bytes of a tensor in, those of another out."""

import signal
import sys

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from serving_peers import Batch, sources

__all__ = ["serve_forever"]


@serve.deployment(max_ongoing_requests=100, ray_actor_options={"num_cpus": 0})
class Served:
    def __init__(self, source: str, folder: str) -> None:
        sys.path.insert(0, folder)
        from serving_peers import runner

        self.run = runner(source)

    async def __call__(self, request: Request) -> Response:
        return Response(self.run(await request.body()))


@serve.deployment(max_ongoing_requests=100, ray_actor_options={"num_cpus": 0})
class ServedTogether:
    def __init__(self, source: str, folder: str, batch: int) -> None:
        sys.path.insert(0, folder)
        from serving_peers import WAIT_S, runner_of_many

        self.run = runner_of_many(source)
        self.many.set_max_batch_size(batch)
        self.many.set_batch_wait_timeout_s(WAIT_S)

    @serve.batch
    async def many(self, bodies: list[bytes]) -> list[bytes]:
        return self.run(bodies)

    async def __call__(self, request: Request) -> Response:
        return Response(await self.many(await request.body()))


def serve_forever(source: str, port: int, replicas: int, batch: Batch) -> None:
    ray.init(include_dashboard=False, num_cpus=replicas, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    for path, file, most in sources(source, batch):
        app = Served.options(num_replicas=replicas).bind(file, sys.path[0])
        if most > 1:
            app = ServedTogether.options(num_replicas=replicas).bind(file, sys.path[0], most)
        serve.run(app, name=path[1:] or "default", route_prefix=path or "/")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
