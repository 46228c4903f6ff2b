"""What a small request takes is small: no memory, time or text out of proportion."""

from __future__ import annotations

import gzip
import json
import socket
import tracemalloc
from urllib.request import Request, urlopen

import numpy as np
import pytest

from coinfer.errors import InputError, TooLargeError, UnknownNameError
from coinfer.server.grpc.infer_message import parse_infer
from coinfer.server.http.body import unpacked
from coinfer.server.http.infer_body import parse_infer as parse_body
from coinfer.server.http.json_tensors import from_json
from coinfer.server.limits import ServerLimits
from coinfer.server.messages import INFERENCE
from coinfer.server.raw_tensors import from_raw
from coinfer.server.status import status_of
from server.servers import address, echo, serving


def test_one_long_text_among_many_is_not_padded_to() -> None:
    data = ["a" * 20_000, *[""] * 20_000]
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="are not FP32"):
            from_json("x", "FP32", (20_001,), data)
        assert from_json("x", "BYTES", (20_001,), data)[0] == data[0]
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("data", [[True, 1], [1.0, False], [None], [{}], [1, [2]], [[], 1]])
def test_numbers_are_numbers_and_lists_are_even(data: list[object]) -> None:
    with pytest.raises(InputError):
        from_json("x", "FP32", (2,), data)


def test_texts_without_number_are_refused() -> None:
    count = 2**18 + 1
    with pytest.raises(TooLargeError, match="texts"):
        from_raw("x", "BYTES", (count,), bytes(4 * count))
    with pytest.raises(TooLargeError, match="texts"):
        from_json("x", "BYTES", (count,), [""] * count)


def test_fields_without_number_are_refused() -> None:
    limits = ServerLimits()
    with pytest.raises(TooLargeError, match="more than 1024 fields"):
        parse_infer(b"\x3a\x00" * 1_000_000, limits, None)  # empty raw contents
    with pytest.raises(TooLargeError, match="more than 1024 fields"):
        parse_infer(b"\x2a\x00" * 1_000_000, limits, None)  # empty inputs
    message = INFERENCE["ModelInferRequest"](model_name="m")
    tensor = message.inputs.add(name="x", datatype="FP32", shape=[1] * 100_000)
    with pytest.raises(TooLargeError, match="100000 dimensions"):
        parse_infer(message.SerializeToString(), limits, None)
    del tensor.shape[:]
    output = message.outputs.add(name="y")
    for number in range(300):
        output.parameters[str(number)].bool_param = True
    tensor.shape.append(1)
    tensor.contents.fp32_contents.append(1)
    with pytest.raises(TooLargeError, match="300 parameters"):
        parse_infer(message.SerializeToString(), limits, None)


def test_an_error_is_short_whatever_is_named_in_it() -> None:
    for name in ("a" * 10_000_000, "a b " * 2_000_000):
        status = status_of(UnknownNameError.of("model", name, ["a" * 200, "b"]))
        assert len(status.text) <= 1500
        assert "Known: " in status.text
    many = UnknownNameError.of("model", "x", [f"model-{number}" for number in range(10_000)])
    assert len(status_of(many).text) <= 1500
    assert len(status_of(InputError("é \n" * 1_000_000)).text) <= 1500


def test_nothing_may_follow_what_is_packed() -> None:
    packed = gzip.compress(b"{}")
    assert bytes(unpacked(packed, "gzip", ServerLimits())) == b"{}"
    with pytest.raises(InputError, match="has more after"):
        unpacked(packed + packed, "gzip", ServerLimits())


def test_numbers_beyond_a_float_become_infinite() -> None:
    assert np.isinf(from_json("x", "FP32", (1,), [1e300]))[0]


def test_json_is_limited_and_binary_data_are_not() -> None:
    limits = ServerLimits(json_bytes=200)
    tensor = {"name": "x", "datatype": "UINT8", "shape": [300]}
    plain = json.dumps({"inputs": [{**tensor, "data": [1] * 300}]}).encode()
    with pytest.raises(TooLargeError, match="send the tensors as binary data"):
        parse_body("m", "", plain, None, limits)
    head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": 300}}]}).encode()
    [found] = parse_body("m", "", head + bytes(300), len(head), limits).inputs
    assert found.array.shape == (300,)


def test_what_is_large_is_answered_beside_the_loop_as_well() -> None:
    tensor = {"name": "x", "datatype": "INT32", "shape": [1, 300_000]}
    body = json.dumps({"inputs": [{**tensor, "data": [7] * 300_000}]}).encode()
    with serving({"m": echo("INT32")}) as server:
        url = f"http://{address(server)}/v2/models/m/infer"
        for sent, encoding in ((body, "identity"), (gzip.compress(body), "gzip")):
            headers = {"content-encoding": encoding, "accept-encoding": encoding}
            with urlopen(Request(url, sent, headers), timeout=30) as answer:
                said = answer.read()
                packed = answer.headers.get("content-encoding")
            assert packed == ("gzip" if encoding == "gzip" else None)
            [y] = json.loads(gzip.decompress(said) if packed else said)["outputs"]
            assert y["data"] == [7] * 300_000
        with socket.create_connection(("127.0.0.1", server.ports["http"]), timeout=30) as client:
            client.sendall(b"POST /v2/repository/index HTTP/1.1\r\nContent-Length: 2000000\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 413")
