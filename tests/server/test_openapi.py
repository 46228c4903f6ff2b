"""The OpenAPI document is what is answered, and what is made from it makes no server fall."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="the extra `server` is not installed")

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable

from coinfer.server.http.openapi import OPERATIONS, openapi_document
from coinfer.server.http.routes import Ask, Routes
from coinfer.server.service import Service
from coinfer.server.serving import Server
from server.servers import address
from server.test_http import ask

EXAMPLES = 6


def parts(path: str) -> tuple[str, ...]:
    return tuple(path.strip("/").replace("{", "").replace("}", "").split("/"))


def test_what_is_listed_is_what_is_answered() -> None:
    routes, listed = Routes(Service(), {}), dict[str, set[str]]()
    for operation in OPERATIONS:
        listed.setdefault(operation.path, set()).add(operation.method)
    for path, methods in listed.items():
        [first, *rest] = parts(path)
        assert first == "v2"
        actions = routes._actions(rest, Ask("GET", parts(path)))
        assert set(actions) == methods, path


def test_the_document_is_served(tiny_server: Server) -> None:
    answer = ask(tiny_server, "GET", "/openapi.json")
    assert answer.status == 200
    assert answer.json == openapi_document()
    names = [
        each["operationId"] for path in answer.json["paths"].values() for each in path.values()
    ]
    assert len(names) == len(set(names)) == len(OPERATIONS)


def near(document: dict[str, Any]) -> dict[str, Any]:
    """Name things that are there, so that requests get far; hypothesis finds none by chance."""
    document = copy.deepcopy(document)
    for path in document["paths"].values():
        for operation in path.values():
            for parameter in operation["parameters"]:
                if parameter["name"] == "model":
                    parameter["schema"]["enum"] = ["linear", "FP32", "BYTES", "INT64", "other"]
                if parameter["name"] == "version":
                    parameter["schema"]["enum"] = ["1", "2", "x"]
            # Binary bodies have no schema: `tests/fuzz` makes those.
            operation.get("requestBody", {"content": {}})["content"].pop(
                "application/octet-stream", None
            )
    schemas = document["components"]["schemas"]
    for which in ("inputs", "outputs"):
        tensor = schemas["InferRequest"]["properties"][which]["items"]["properties"]
        tensor["name"] = {"type": "string", "enum": ["x", "y", "z"]}
    schemas["Region"]["properties"]["key"] = {"type": "string", "pattern": "^/coinfer-none-[a-z]+$"}
    return document


def test_requests_made_from_the_document_get_the_answers_that_it_says(
    tiny_server: Server,
) -> None:
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    of_openapi = import_module("schemathesis.specs.openapi.checks")
    checks = [
        schemathesis.checks.not_a_server_error,
        of_openapi.content_type_conformance,
        of_openapi.response_schema_conformance,
    ]
    statuses = Counter[int]()

    def answered(case: Any) -> None:
        response = case.call(base_url=f"http://{address(tiny_server)}")
        statuses[response.status_code] += 1
        case.validate_response(response, checks=checks)

    schema = schemathesis.openapi.from_dict(near(openapi_document()))
    modes = schemathesis.GenerationMode
    for result in schema.get_all_operations():
        for mode in (modes.POSITIVE, modes.NEGATIVE):
            with suppress(Unsatisfiable):  # nothing that is sent could be wrong
                bounded(given(result.ok().as_strategy(generation_mode=mode))(answered))()
    assert statuses[200] > len(OPERATIONS)
    assert statuses[400]
    assert ask(tiny_server, "GET", "/v2/health/ready").status == 200


def bounded(test: Callable[[], None]) -> Callable[[], None]:
    quick = settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    return seed(23)(quick(test))
