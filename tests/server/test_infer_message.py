"""A request over gRPC is read as protobuf reads it, without copying its tensors, or refused."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coinfer.errors import CoinferError, InputError
from coinfer.server.grpc.infer_message import parse_infer
from coinfer.server.limits import ServerLimits
from coinfer.server.messages import INFERENCE

LIMITS = ServerLimits()


def _message(count: int = 2, size: int = 1000) -> bytes:
    message = INFERENCE["ModelInferRequest"](model_name="m", model_version="3", id="7")
    message.parameters["priority"].int64_param = 2
    message.outputs.add(name="y").parameters["classification"].int64_param = 5
    for number in range(count):
        message.inputs.add(name=f"x{number}", datatype="UINT8", shape=[size])
        message.raw_input_contents.append(bytes([number % 256]) * size)
    return bytes(message.SerializeToString())


def test_tensors_are_views_of_the_message() -> None:
    data = _message()
    request = parse_infer(data, LIMITS, None)
    whole = np.frombuffer(data, np.uint8)
    for number, tensor in enumerate(request.inputs):
        assert np.shares_memory(tensor.array, whole)
        assert tensor.array.tolist() == [number] * 1000
    assert (request.model, request.version, request.id) == ("m", "3", "7")
    assert request.parameters == {"priority": 2}
    assert [(each.name, dict(each.parameters)) for each in request.outputs] == [
        ("y", {"classification": 5})
    ]


def test_empty_typed_contents_beside_raw_ones_say_nothing() -> None:
    message = INFERENCE["ModelInferRequest"].FromString(_message())
    for tensor in message.inputs:
        tensor.contents.SetInParent()
    request = parse_infer(message.SerializeToString(), LIMITS, None)
    assert [each.array[0] for each in request.inputs] == [0, 1]
    message.inputs[0].contents.uint_contents.append(1)
    with pytest.raises(InputError, match="typed contents beside raw"):
        parse_infer(message.SerializeToString(), LIMITS, None)


def test_fields_may_come_in_any_order() -> None:
    first, second = _message(count=1), INFERENCE["ModelInferRequest"](id="9")
    second.inputs.add(name="z", datatype="UINT8", shape=[1])
    second.raw_input_contents.append(b"\5")
    request = parse_infer(first + second.SerializeToString(), LIMITS, None)
    assert request.id == "9"
    assert [(each.name, each.array[0]) for each in request.inputs] == [("x0", 0), ("z", 5)]


def test_unknown_fields_of_any_kind_are_skipped() -> None:
    unknown = b"\xa0\x06\x01" + b"\xa1\x06" + bytes(8) + b"\xa5\x06" + bytes(4) + b"\xa2\x06\x01a"
    assert parse_infer(unknown + _message(), LIMITS, None).id == "7"


@pytest.mark.parametrize("end", range(1, 60, 7))
def test_a_message_that_ends_early_is_refused(end: int) -> None:
    with pytest.raises(InputError):
        parse_infer(_message()[:-end], LIMITS, None)


def test_too_many_tensors_are_refused() -> None:
    with pytest.raises(CoinferError, match="at most 256 inputs"):
        parse_infer(_message(count=257, size=1), LIMITS, None)


@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with suppress(CoinferError):
        parse_infer(data, LIMITS, None)


@given(st.integers(0, 200), st.integers(0, 255), st.integers(1, 3))
def test_a_message_with_wrong_bytes_is_read_or_refused(at: int, byte: int, count: int) -> None:
    data = bytearray(_message(size=20))
    data[at % len(data)] = byte
    del data[(at * 7) % len(data) : (at * 7) % len(data) + count - 1]
    with suppress(CoinferError):
        parse_infer(bytes(data), LIMITS, None)
