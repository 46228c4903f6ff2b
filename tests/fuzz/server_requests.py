"""Server requests: bodies of HTTP and messages of gRPC, made by their structure and then damaged.

`write_request` writes one into a folder. `ask_service` reads it as the server's front ends do,
gives it to a service of a tiny model on the null backend, and writes the answer.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

from fuzz.byte_mutation import mutate_bytes
from fuzz.hostile import INTEGERS, TEXTS
from fuzz.message_mutation import mutate_message
from fuzz.tree_mutation import keys_of, mutate_tree

__all__ = ["ask_service", "write_request"]

_SIZES = {
    "BOOL": 1, "INT8": 1, "UINT8": 1, "INT16": 2, "UINT16": 2, "FP16": 2, "BF16": 2, "INT32": 4,
    "UINT32": 4, "FP32": 4, "INT64": 8, "UINT64": 8, "FP64": 8, "BYTES": 0,
}  # fmt: skip
_ANSWER_S = 15.0
_BODY, _ABOUT = "request.bin", "request.json"


def write_request(rng: random.Random, folder: Path) -> None:
    """Write a request into a folder, and beside it how it is to be read."""
    if rng.random() < 0.5:
        body, about = _over_http(rng)
    else:
        body, about = _over_grpc(rng)
    if rng.random() < 0.2:
        body = mutate_bytes(body, rng)
    (folder / _BODY).write_bytes(body)
    (folder / _ABOUT).write_text(json.dumps(about))


def _tensor(rng: random.Random) -> tuple[str, str, list[int], bytes]:
    """Return name, datatype, shape and bytes of a tensor, most of which fit together."""
    datatype = rng.choice(sorted(_SIZES)) if rng.random() < 0.25 else "FP32"
    shape = [rng.choice((0, 1, 2, 3)), 4] if rng.random() < 0.9 else [rng.choice((1, 4, 2**40))]
    count = 1
    for size in shape:
        count *= size
    count = min(count, 64)
    if datatype == "BYTES":
        texts = [rng.randbytes(rng.randrange(4)) for _ in range(count)]
        lengths = [len(each) if rng.random() < 0.95 else 2**32 - 1 for each in texts]
        pairs = zip(lengths, texts, strict=True)
        data = b"".join(length.to_bytes(4, "little") + text for length, text in pairs)
    else:
        data = rng.randbytes(count * _SIZES[datatype])
    return rng.choice((*"x" * 8, "y", "")), datatype, shape, data


def _over_http(rng: random.Random) -> tuple[bytes, dict[str, Any]]:
    inputs, parts = [], []
    for _ in range(rng.choice((1, 1, 1, 1, 1, 2, 0))):
        name, datatype, shape, data = _tensor(rng)
        size = len(data) if rng.random() < 0.9 else rng.choice(INTEGERS)
        parameters: dict[str, Any] = {"binary_data_size": size}
        tensor = {"name": name, "datatype": datatype, "shape": shape, "parameters": parameters}
        if rng.random() < 0.3:
            del tensor["parameters"]
            tensor["data"] = [rng.choice((0, 1, 0.5, -1, 1e300, "a", True))] * min(8, len(data))
        else:
            parts.append(data)
        inputs.append(tensor)
    head: Any = {"inputs": inputs, "id": rng.choice(("7", *TEXTS))}
    if rng.random() < 0.5:
        head["outputs"] = [{"name": "y", "parameters": {"binary_data": rng.random() < 0.5}}]
    if rng.random() < 0.5:
        timeout = rng.choice((0, 10**6, 10**9, "5000000", rng.choice(INTEGERS)))
        head["parameters"] = {"timeout": timeout, "binary_data_output": True, "priority": 1}
    if rng.random() < 0.5:
        head = mutate_tree(head, rng, sorted(keys_of(head)))
    text = json.dumps(head, default=str).encode()
    length: int | None = len(text)
    if rng.random() < 0.15:
        length = rng.choice((None, 0, len(text) - 1, len(text) + 1, 10**9))
    return text + b"".join(parts), {"how": "http", "length": length}


def _over_grpc(rng: random.Random) -> tuple[bytes, dict[str, Any]]:
    from coinfer.server.messages import INFERENCE

    message: Any = INFERENCE["ModelInferRequest"](model_name="m", id="7")
    for _ in range(rng.choice((1, 1, 1, 1, 1, 2, 0))):
        name, datatype, shape, data = _tensor(rng)
        tensor = message.inputs.add(name=name, datatype=datatype, shape=shape)
        if rng.random() < 0.3:
            tensor.contents.fp32_contents.extend([0.5] * min(8, len(data)))
        else:
            message.raw_input_contents.append(data)
    if rng.random() < 0.5:
        wanted = message.outputs.add(name="y")
        wanted.parameters["classification"].int64_param = rng.choice((1, 2, 3, -1, 2**62))
    if rng.random() < 0.5:
        message.parameters["timeout"].int64_param = rng.choice((0, 10**6, 10**9, -1, 2**62))
        message.parameters["priority"].string_param = rng.choice(("1", "1", "0", "x"))
    if rng.random() < 0.6:
        mutate_message(message, rng, [message])
    return message.SerializePartialToString(deterministic=True), {"how": "grpc"}


def ask_service(folder: str) -> None:
    """Read a request and answer it; whatever coinfer raises on purpose is right."""
    from concurrent.futures import CancelledError

    import coinfer
    from coinfer.errors import CoinferError
    from coinfer.server import served_model
    from coinfer.server.service import Service
    from coinfer.testing.models import tiny_linear

    body = Path(folder, _BODY).read_bytes()
    about = json.loads(Path(folder, _ABOUT).read_text())
    model, service = tiny_linear().model, Service()
    processors = [coinfer.Processor(name="n", backend="null", units=frozenset({"v"}))]
    profile = coinfer.Profile.from_seconds({"m": {"n": 1e-4}})
    with coinfer.Engine({"m": model}, processors=processors, profile=profile) as engine:
        service.open(engine, [served_model.served("m", model)])
        try:
            answer = _answered(service, body, about)
        except (CoinferError, CancelledError) as error:
            print(f"coinfer: error: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201
            sys.exit(2)
        print(len(answer))  # noqa: T201


def _answered(service: Any, body: bytes, about: dict[str, Any]) -> bytes:
    from coinfer.server.grpc import infer_answer as grpc_answer
    from coinfer.server.grpc import infer_message
    from coinfer.server.http import infer_answer as http_answer
    from coinfer.server.http import infer_body
    from coinfer.server.limits import ServerLimits

    if about["how"] == "grpc":
        request = infer_message.parse_infer(body, ServerLimits(), service.shared_memory)
        return bytes(grpc_answer.write_infer(service.infer(request).response(_ANSWER_S)))
    request = infer_body.parse_infer(
        "m", "", body, about["length"], ServerLimits(), service.shared_memory
    )
    response = service.infer(request).response(_ANSWER_S)
    return b"".join(http_answer.write_infer(request, response).parts)
