"""OpenAPI: what HTTP answers, as a document of OpenAPI 3.1. Made from one table; answers nothing.

Tests compare the table with `Routes`, which finds who answers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from coinfer import __version__
from coinfer.model.datatypes import BYTES, DTYPES
from coinfer.server.http.reply import Reply, of_json
from coinfer.server.http.routes import Ask, Page

__all__ = ["OPERATIONS", "Operation", "openapi_document", "openapi_page"]

_JSON, _BINARY = "application/json", "application/octet-stream"
_LENGTH = "Inference-Header-Content-Length"


class Operation(NamedTuple):
    """One thing that can be asked.

    Attributes:
        method: Of HTTP.
        path: With the names of its parameters in braces.
        summary: What it does.
        answer: The schema of what comes with 200; empty: nothing does.
        body: The schema of what is sent; empty: nothing is.
        other: Statuses whose answer has no body.
    """

    method: str
    path: str
    summary: str
    answer: str = ""
    body: str = ""
    other: tuple[int, ...] = ()


def _of_model(path: str, version: str) -> tuple[Operation, ...]:
    of = f"a model{version}"
    return (
        Operation("GET", path, f"Metadata of {of}", "ModelMetadata"),
        Operation("GET", f"{path}/ready", f"Whether requests to {of} are taken", other=(503,)),
        Operation("GET", f"{path}/config", f"Configuration of {of}", "Object"),
        Operation("GET", f"{path}/stats", f"What became of requests to {of}", "Statistics"),
        Operation("POST", f"{path}/infer", f"Ask {of}", "InferResponse", "InferRequest"),
    )


_MEMORY = "/v2/systemsharedmemory"

OPERATIONS: tuple[Operation, ...] = (
    Operation("GET", "/v2", "Metadata of the server", "ServerMetadata"),
    Operation("GET", "/v2/health/live", "Whether the server answers at all", other=(503,)),
    Operation("GET", "/v2/health/ready", "Whether it takes requests", other=(503,)),
    Operation("GET", "/v2/models/stats", "What became of all requests", "Statistics"),
    *_of_model("/v2/models/{model}", ""),
    *_of_model("/v2/models/{model}/versions/{version}", " in a version"),
    Operation("POST", "/v2/repository/index", "Which models there are", "Index", "IndexRequest"),
    Operation(
        "POST", "/v2/repository/models/{model}/load", "Load a model", "Object", "LoadRequest"
    ),
    Operation("POST", "/v2/repository/models/{model}/unload", "Unload a model", "Object", "Object"),
    Operation("GET", f"{_MEMORY}/status", "The registered regions", "Regions"),
    Operation("GET", f"{_MEMORY}/region/{{region}}/status", "A registered region", "Regions"),
    Operation(
        "POST", f"{_MEMORY}/region/{{region}}/register", "Register a region", "Object", "Region"
    ),
    Operation("POST", f"{_MEMORY}/region/{{region}}/unregister", "Forget a region", "Object"),
    Operation("POST", f"{_MEMORY}/unregister", "Forget all regions", "Object"),
)
"""What the protocol has, but for what is always answered with 501."""


def openapi_document() -> dict[str, Any]:
    """Return the document.

    >>> sorted(openapi_document()["paths"]["/v2/models/{model}"])
    ['get']
    """
    paths: dict[str, Any] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation)
    about = "Open Inference Protocol v2 with the extensions that coinfer offers."
    return {
        "openapi": "3.1.0",
        "info": {"title": "coinfer", "version": __version__, "description": about},
        "paths": paths,
        "security": [{}, {"token": []}],
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": _SCHEMAS,
        },
    }


def openapi_page() -> Page:
    """Return what answers `/openapi.json`."""
    document = openapi_document()

    async def page(_ask: Ask) -> Reply:
        return of_json(document)

    return page


def _described(operation: Operation) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in ("model", "version", "region")
        if f"{{{name}}}" in operation.path
    ]
    kinds: tuple[str, ...] = (_JSON,)
    if operation.body == "InferRequest":
        parameters += [
            _header(_LENGTH, {"type": "integer", "minimum": 0}, "Bytes of JSON before the tensors"),
            _header("X-Coinfer-Deadline", {"type": "string"}, "E.g. `50ms`"),
            _header("X-Coinfer-Explain", {"type": "string"}, "Tell why it went where it went"),
        ]
        kinds = (_JSON, _BINARY)
    said: dict[str, Any] = {"summary": operation.summary, "parameters": parameters}
    said["operationId"] = _name_of(operation)
    if operation.body:
        said["requestBody"] = {"content": _content(operation.body, kinds)}
    good: dict[str, Any] = {"description": "As asked"}
    if operation.answer:
        good["content"] = _content(operation.answer, kinds)
    responses = {"200": good}
    responses |= {str(status): {"description": "Not now"} for status in operation.other}
    responses["default"] = {"description": "Why not", "content": _content("Error", (_JSON,))}
    return {**said, "responses": responses}


def _name_of(operation: Operation) -> str:
    words = [part.strip("{}") for part in operation.path.split("/")[2:]] or ["server"]
    return "_".join((operation.method.lower(), *words))


def _header(name: str, schema: dict[str, Any], text: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "schema": schema, "description": text}


def _content(name: str, kinds: tuple[str, ...]) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{name}"}
    # Of what is binary, only the first part is JSON, and OpenAPI has no word for that.
    return {kind: {"schema": schema} if kind == _JSON else {} for kind in kinds}


def _object(required: str = "", **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required.split(), "properties": properties}


def _list(of: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": of, **more}


_TEXT, _WHOLE = {"type": "string"}, {"type": "integer"}
_COUNT = {"type": "integer", "minimum": 0}
_NAME = {"type": "string", "minLength": 1, "maxLength": 1000}
_DATATYPE = {"type": "string", "enum": sorted({*DTYPES, BYTES})}
_PARAMETERS = {
    "type": "object",
    "additionalProperties": {"type": ["boolean", "integer", "number", "string"]},
}
_SHAPE = _list(_COUNT, maxItems=32)
_SPEC = _object("name datatype shape", name=_TEXT, datatype=_TEXT, shape=_list(_WHOLE))

_SCHEMAS: dict[str, Any] = {
    "Object": {"type": "object"},
    "Error": _object("error", error=_TEXT),
    "ServerMetadata": _object(
        "name version extensions", name=_TEXT, version=_TEXT, extensions=_list(_TEXT)
    ),
    "ModelMetadata": _object(
        "name versions platform inputs outputs",
        name=_TEXT,
        versions=_list(_TEXT),
        platform=_TEXT,
        inputs=_list(_SPEC),
        outputs=_list(_SPEC),
    ),
    "Statistics": _object(
        "model_stats",
        model_stats=_list(
            _object(
                "name version inference_count", name=_TEXT, version=_TEXT, inference_count=_COUNT
            )
        ),
    ),
    "InferRequest": _object(
        "inputs",
        id=_TEXT,
        parameters={
            **_PARAMETERS,
            "properties": {
                "timeout": {**_COUNT, "description": "Microseconds until the answer is wanted"},
                "priority": {**_COUNT, "description": "1 is the most urgent"},
                "on_late": {"type": "string", "enum": ["drop", "run"]},
                "binary_data_output": {"type": "boolean"},
                "coinfer_explain": {"type": "boolean"},
            },
        },
        inputs=_list(
            _object(
                "name datatype shape",
                name=_NAME,
                datatype=_DATATYPE,
                shape=_SHAPE,
                parameters=_PARAMETERS,
                data=_list({"type": ["number", "string", "boolean", "array"]}),
            ),
            minItems=1,
            maxItems=256,
        ),
        outputs=_list(_object("name", name=_NAME, parameters=_PARAMETERS), maxItems=256),
    ),
    "InferResponse": _object(
        "model_name model_version outputs",
        model_name=_TEXT,
        model_version=_TEXT,
        id=_TEXT,
        parameters=_PARAMETERS,
        outputs=_list(
            _object(
                "name datatype shape",
                name=_TEXT,
                datatype=_DATATYPE,
                shape=_SHAPE,
                parameters=_PARAMETERS,
                data={"type": "array"},
            )
        ),
    ),
    "IndexRequest": _object(ready={"type": "boolean"}),
    "Index": _list(
        _object("name version state reason", name=_TEXT, version=_TEXT, state=_TEXT, reason=_TEXT)
    ),
    "LoadRequest": _object(parameters=_PARAMETERS),
    "Region": _object("key byte_size", key=_TEXT, offset=_COUNT, byte_size=_COUNT),
    "Regions": _list(
        _object("name key offset byte_size", name=_TEXT, key=_TEXT, offset=_COUNT, byte_size=_COUNT)
    ),
}
