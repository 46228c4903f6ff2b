"""What a server takes from three networks that run together: requests/s beside its engine alone.

    python benchmarks/serving_mix.py [--requests 120] [--at-a-time 6] [--rounds 7]

MobileNetV2, ResNet50 and ResNet101, asked in turn, so many requests under way. Once they are asked
over HTTP by a process of its own on the same machine, with binary tensors; once by threads in the
server's process that call `Engine.submit`. It is the same engine, and both are asked in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from environment import OtherWork, print_environment
from requirement import Requirement, print_requirements
from rounds import output_of, ratio_of
from serving_client import HttpConnection
from tables import new_console

NETWORKS = ("mobilenet_v2", "resnet50", "resnet101")
SHAPE = (1, 3, 224, 224)
LEAST = 0.97


def main() -> int:
    """Measure and print; the exit status is 1 if the requirement is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=120)
    parser.add_argument("--at-a-time", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    console = new_console()
    print_environment(console)
    count, many = given.requests, given.at_a_time
    served, alone = list[float](), list[float]()
    with OtherWork() as other, tempfile.TemporaryDirectory() as folder:
        write_networks(Path(folder))
        command = [sys.executable, __file__, "serve", folder]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as server:
            assert server.stdin is not None
            assert server.stdout is not None
            port = server.stdout.readline().strip()

            def over_http() -> None:
                asking = [sys.executable, __file__, "ask", port, str(count), str(many)]
                served.append(count / float(output_of(asking).splitlines()[-1]))

            def engine() -> None:
                assert server.stdin is not None
                assert server.stdout is not None
                print(count, many, file=server.stdin, flush=True)
                alone.append(count / float(server.stdout.readline()))

            for number in range(given.rounds):
                for measure in (over_http, engine) if number % 2 else (engine, over_http):
                    measure()
            server.stdin.close()
    ratio = ratio_of(served, alone, larger_is_better=True)
    console.print(f"over HTTP {np.median(served):.2f}/s, engine alone {np.median(alone):.2f}/s")
    console.print(f"ratio {ratio}")
    console.print(other.note)
    return print_requirements(
        console,
        [
            Requirement(
                what="three networks over HTTP, requests/s of the engine's",
                value=ratio.median,
                required=LEAST,
                remark=ratio.bounds,
            )
        ],
    )


def write_networks(folder: Path) -> None:
    import onnx_ir

    from coinfer import zoo

    for name in NETWORKS:
        onnx_ir.save(zoo.build(name, seed=0), folder / f"{name}.onnx")


def serve(folder: Path) -> None:
    """Serve the networks, and measure the engine alone for each line of standard input."""
    import coinfer
    from coinfer.server.opening import Opened
    from coinfer.server.served_model import served
    from coinfer.server.serving import ServeOptions, Server

    models = {name: coinfer.load_model(folder / f"{name}.onnx", name=name) for name in NETWORKS}
    engine = coinfer.Engine(models)
    names = {name: model.inputs[0].name for name, model in models.items()}
    x = np.zeros(SHAPE, np.float32)
    with Server(ServeOptions(http=0)) as server:
        described = [served(name, model) for name, model in models.items()]
        server.open(Opened(engine=engine, models=described))
        print(server.ports["http"], json.dumps(names), flush=True)
        for line in sys.stdin:
            count, many = map(int, line.split())
            turn, taking = iter(range(count)), threading.Lock()

            def ask(turn=turn, taking=taking) -> None:  # type: ignore[no-untyped-def]
                while True:
                    with taking:
                        number = next(turn, None)
                    if number is None:
                        return
                    name = NETWORKS[number % len(NETWORKS)]
                    engine.submit(name, {names[name]: x}).result()

            asking = [threading.Thread(target=ask) for _ in range(many)]
            began_s = time.perf_counter()
            for thread in asking:
                thread.start()
            for thread in asking:
                thread.join()
            print(time.perf_counter() - began_s, flush=True)


class Asking(HttpConnection):
    """Asks for the next network as soon as it has its answer."""

    def __init__(self, turn: object, requests: list[bytes], ended: asyncio.Future[None]) -> None:
        super().__init__()
        self.turn, self.requests, self.ended = turn, requests, ended

    def ask(self) -> None:
        number = next(self.turn, None)  # type: ignore[call-overload]
        if number is None:
            self.ended.set_result(None)
        else:
            request = self.requests[number % len(self.requests)]
            self.transport.write(request)  # type: ignore[attr-defined]

    def answered(self, is_ok: bool, head: bytes) -> None:
        if not is_ok:
            self.ended.set_exception(RuntimeError(head.decode(errors="replace")))
            return
        self.ask()


async def ask_all(port: int, names: dict[str, str], count: int, many: int) -> float:
    requests = []
    for network in NETWORKS:
        raw = bytes(4 * int(np.prod(SHAPE)))
        tensor = {"name": names[network], "datatype": "FP32", "shape": SHAPE}
        said = {
            "inputs": [{**tensor, "parameters": {"binary_data_size": len(raw)}}],
            "parameters": {"binary_data_output": True},
        }
        head = json.dumps(said).encode()
        lines = f"POST /v2/models/{network}/infer HTTP/1.1\r\nHost: x\r\n"
        lines += f"Inference-Header-Content-Length: {len(head)}\r\n"
        lines += f"Content-Length: {len(head) + len(raw)}\r\n\r\n"
        requests.append(lines.encode() + head + raw)
    loop, turn = asyncio.get_running_loop(), iter(range(count))
    made = []
    for _ in range(many):
        ended = loop.create_future()
        _, connection = await loop.create_connection(
            lambda ended=ended: Asking(turn, requests, ended), "127.0.0.1", port
        )
        made.append(connection)
    began_s = time.perf_counter()
    for each in made:
        each.ask()
    await asyncio.gather(*(each.ended for each in made))
    return time.perf_counter() - began_s


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", folder]:
            serve(Path(folder))
        case ["ask", said, count, many]:
            port, _, names = said.partition(" ")
            print(asyncio.run(ask_all(int(port), json.loads(names), int(count), int(many))))
        case _:
            sys.exit(main())
