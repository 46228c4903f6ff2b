"""The messages are those that clients of the protocol send."""

from __future__ import annotations

from typing import Any

import pytest

from coinfer.server.messages import HEALTH, INFERENCE, METHODS, SERVICE


def _fields(descriptor: Any) -> dict[str, tuple[Any, ...]]:
    found = {}
    for field in descriptor.fields:
        of = field.message_type or field.enum_type
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            pairs = _fields(field.message_type)
            found[field.name] = (field.number, "map", *pairs["key"][1:], *pairs["value"][1:])
            continue
        choice = field.containing_oneof
        found[field.name] = (
            field.number,
            field.type,
            field.is_repeated,
            of and of.full_name,
            choice and choice.name,
        )
    return found


def _clients(name: str) -> Any:
    grpc = pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
    for file in (grpc.service_pb2.DESCRIPTOR, grpc.model_config_pb2.DESCRIPTOR):
        outer, *inner = name.split(".")
        found = file.message_types_by_name.get(outer)
        for each in inner:
            found = found and found.nested_types_by_name[each]
        if found is not None:
            return found
    raise AssertionError(f"the client has no message {name}")


@pytest.mark.parametrize("name", INFERENCE.names())
def test_every_field_has_the_number_and_type_that_the_client_knows(name: str) -> None:
    ours, theirs = _fields(INFERENCE[name].DESCRIPTOR), _fields(_clients(name))
    assert {field: theirs.get(field) for field in ours} == ours
    if not name.startswith("Model") or name.startswith(("ModelInfer", "ModelStat", "ModelMeta")):
        assert set(ours) == set(theirs)


def test_the_messages_of_the_protocol_are_all_there() -> None:
    grpc = pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
    assert set(grpc.service_pb2.DESCRIPTOR.message_types_by_name) <= set(INFERENCE.names())


def test_every_enum_has_the_values_that_the_client_knows() -> None:
    grpc = pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
    config = grpc.model_config_pb2
    pairs = [
        (INFERENCE["ModelInput"].DESCRIPTOR.fields_by_name["data_type"].enum_type, config.DataType),
        (INFERENCE["ModelInput"].DESCRIPTOR.enum_types[0], config.ModelInput.Format),
        (
            INFERENCE["ModelInstanceGroup"].DESCRIPTOR.enum_types[0],
            config.ModelInstanceGroup.Kind,
        ),
        (
            INFERENCE["ModelQueuePolicy"].DESCRIPTOR.enum_types[0],
            config.ModelQueuePolicy.TimeoutAction,
        ),
    ]
    for ours, theirs in pairs:
        assert {value.name: value.number for value in ours.values} == dict(theirs.items())


def test_the_calls_are_those_of_the_client() -> None:
    grpc = pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
    [service] = grpc.service_pb2.DESCRIPTOR.services_by_name.values()
    theirs = {
        each.name: (each.input_type.name, each.output_type.name, each.client_streaming)
        for each in service.methods
    }
    assert service.full_name == SERVICE
    assert {m.name: (m.request, m.response, m.streams) for m in METHODS.values()} == theirs


def test_a_request_of_the_client_is_read_as_it_was_meant() -> None:
    grpc = pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
    theirs = grpc.service_pb2.ModelInferRequest(model_name="m", id="7")
    theirs.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    theirs.parameters["priority"].int64_param = 3
    theirs.raw_input_contents.append(b"12345678")
    ours = INFERENCE["ModelInferRequest"].FromString(theirs.SerializeToString())
    assert ours.model_name == "m"
    assert ours.parameters["priority"].int64_param == 3
    assert ours.SerializeToString() == theirs.SerializeToString()


def test_the_messages_of_health_are_those_of_grpc() -> None:
    health = pytest.importorskip("grpc_health.v1.health_pb2", reason="not installed")
    ours = HEALTH["HealthCheckResponse"]
    theirs = health.HealthCheckResponse(status=health.HealthCheckResponse.SERVING)
    assert ours.FromString(theirs.SerializeToString()).status == 1
    for name in HEALTH.names():
        assert _fields(HEALTH[name].DESCRIPTOR) == _fields(getattr(health, name).DESCRIPTOR)
