"""A small server of the protocol over gRPC, beside the fake one over HTTP: honest, or not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
from google.protobuf import json_format

from coinfer.server.messages import HEALTH, HEALTH_SERVICE, INFERENCE, METHODS, SERVICE
from oip.fake_model import DTYPES, EXTENSIONS, INPUTS, NAME, OUTPUTS, FakeModel, RefusedError

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    501: grpc.StatusCode.UNIMPLEMENTED,
}
_TYPED = {"FP32": "fp32_contents", "INT32": "int_contents", "INT64": "int64_contents"}


class _Calls:
    def __init__(self, model: FakeModel) -> None:
        self.model = model

    def answer(self, method: str, request: Any) -> dict[str, Any]:
        match method:
            case "ServerLive":
                return {"live": True}
            case "ServerReady":
                return {"ready": True}
            case "ServerMetadata":
                return {"name": "fake", "version": "1.0", "extensions": EXTENSIONS}
            case "ModelReady":
                return {"ready": request.name == NAME}
            case "ModelMetadata":
                self.model.check_model(request.name)
                return self.model.metadata()
            case "ModelConfig":
                self.model.check_model(request.name)
                return {"config": self.model.config()}
            case "ModelStatistics":
                [said] = self.model.statistics()
                return {"model_stats": [said]}
            case "RepositoryIndex":
                return {"models": [{"name": NAME, "version": "1", "state": "READY"}]}
            case "SystemSharedMemoryStatus":
                return {"regions": {}}
            case "LogSettings" if self.model.fault == "answers what is not offered":
                return {}
        raise RefusedError(f"{method} is not offered", 501)

    def infer(self, request: Any) -> Any:
        model, raw = self.model, list(request.raw_input_contents)
        model.check_model(request.model_name)
        typed = any(each.HasField("contents") for each in request.inputs)
        if raw and typed and model.fault != "mixes contents":
            raise RefusedError("raw and typed contents are mixed")
        if raw and len(raw) != len(request.inputs) and model.fault != "mixes contents":
            raise RefusedError(f"{len(raw)} raw contents")
        arrays: dict[str, Any] = {}
        for number, each in enumerate(request.inputs):
            shape = model.check_shape(each.name, each.datatype, list(each.shape))
            if each.name in arrays:
                raise RefusedError("an input twice")
            if typed:
                data = list(getattr(each.contents, _TYPED[each.datatype]))
                found = np.array(data, DTYPES[INPUTS[each.name][0]])
                arrays[each.name] = found.reshape(shape)
            elif raw:
                arrays[each.name] = model.from_raw(each.name, shape, raw[number])
        answer = INFERENCE["ModelInferResponse"](model_name=NAME, model_version="1")
        answer.id = "" if model.fault == "no ids over gRPC" else request.id
        for name, array in self._wanted(request, model.compute(arrays)).items():
            out = answer.outputs.add(name=name, datatype=OUTPUTS[name][0], shape=array.shape)
            answer.raw_output_contents.append(array.tobytes())
            if model.fault == "raw and typed answers":
                getattr(out.contents, _TYPED[out.datatype]).extend(array.ravel().tolist())
        return answer

    def _wanted(self, request: Any, found: dict[str, Any]) -> dict[str, Any]:
        names = self.model.wanted([each.name for each in request.outputs])
        return {name: found[name] for name in names}

    def stream(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        for request in requests:
            try:
                yield INFERENCE["ModelStreamInferResponse"](infer_response=self.infer(request))
            except RefusedError as error:
                if self.model.fault == "streams end with an error":
                    context.abort(_CODES[error.status], str(error))
                yield INFERENCE["ModelStreamInferResponse"](error_message=str(error))

    def health(self, request: Any, context: Any) -> Any:
        if request.service not in ("", SERVICE):
            context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        status = 2 if self.model.fault == "not serving" else 1
        return HEALTH["HealthCheckResponse"](status=status)


def _guarded(call: Callable[[Any], Any], fault: str) -> Callable[[Any, Any], Any]:
    def answer(request: Any, context: Any) -> Any:
        try:
            return call(request)
        except RefusedError as error:
            code = _CODES[error.status]
            context.abort(grpc.StatusCode.UNKNOWN if fault == "code UNKNOWN" else code, str(error))

    return answer


def _handlers(calls: _Calls) -> dict[str, Any]:
    found = {}
    for name, method in METHODS.items():
        request = INFERENCE[method.request].FromString
        kinds = {"request_deserializer": request, "response_serializer": _to_bytes}
        if method.streams:
            found[name] = grpc.stream_stream_rpc_method_handler(calls.stream, **kinds)
            continue
        response = INFERENCE[method.response]

        def answer(message: Any, name: str = name, response: Any = response) -> Any:
            return json_format.ParseDict(calls.answer(name, message), response())

        call = calls.infer if name == "ModelInfer" else answer
        handler = _guarded(call, calls.model.fault)
        found[name] = grpc.unary_unary_rpc_method_handler(handler, **kinds)
    return found


def _to_bytes(message: Any) -> bytes:
    return bytes(message.SerializeToString())


@contextmanager
def grpc_server(model: FakeModel) -> Iterator[str]:
    """Serve over gRPC on a free port; yield the address."""
    calls = _Calls(model)
    health = grpc.unary_unary_rpc_method_handler(
        calls.health,
        request_deserializer=HEALTH["HealthCheckRequest"].FromString,
        response_serializer=_to_bytes,
    )
    options = [("grpc.max_receive_message_length", -1)]
    with ThreadPoolExecutor(4) as threads:
        server = grpc.server(threads, options=options)
        generic = grpc.method_handlers_generic_handler
        server.add_generic_rpc_handlers(
            (generic(SERVICE, _handlers(calls)), generic(HEALTH_SERVICE, {"Check": health}))
        )
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(0).wait()
