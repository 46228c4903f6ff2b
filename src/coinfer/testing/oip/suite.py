"""Suite: runs the cases against a server and collects how they ended."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from coinfer.errors import ConfigurationError, first_line
from coinfer.testing.oip.error_cases import ERROR_CASES
from coinfer.testing.oip.grpc_cases import GRPC_MODEL_CASES, GRPC_SERVER_CASES
from coinfer.testing.oip.grpc_client import GrpcClient
from coinfer.testing.oip.http_client import HttpClient
from coinfer.testing.oip.infer_cases import INFER_CASES
from coinfer.testing.oip.memory_cases import MEMORY_CASES
from coinfer.testing.oip.server_cases import MODEL_CASES, SERVER_CASES
from coinfer.testing.oip.target import Target
from coinfer.testing.oip.verdict import FailedError, NotOfferedError, Result, Verdict

__all__ = ["run_suite"]

_Case = Callable[[Target], None]

_OF_SERVER: tuple[_Case, ...] = (*SERVER_CASES, *GRPC_SERVER_CASES)
_OF_MODEL: tuple[_Case, ...] = (
    *MODEL_CASES,
    *INFER_CASES,
    *ERROR_CASES,
    *MEMORY_CASES,
    *GRPC_MODEL_CASES,
)


def run_suite(
    url: str,
    *,
    grpc: str | None = None,
    models: Sequence[str] = (),
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    tolerance: float = 0.01,
    timeout_s: float = 10.0,
    token: str | None = None,
    only: Callable[[str], bool] = lambda _: True,
) -> Iterator[Result]:
    """Run the suite; yield each case as it ends.

    Args:
        url: Of the server, such as `http://127.0.0.1:8000`.
        grpc: HOST:PORT of gRPC; None: those cases are not offered.
        models: Names of models; empty: those that the index says are ready.
        shapes: Shapes of inputs by name. Without, open axes are 1.
        tolerance: Largest ||a - b|| / ||b|| between outputs of equal requests: a server may answer
            them from different processors.
        timeout_s: Seconds until an answer is taken as none.
        token: Sent as bearer token.
        only: Chooses cases by name.

    Raises:
        ConfigurationError: the server does not answer, or no model was named and it has no index.
    """
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    http_client = HttpClient(url, timeout_s, headers)
    metadata = tuple((name.lower(), value) for name, value in headers.items())
    grpc_client = None if grpc is None else GrpcClient(grpc, timeout_s, metadata)
    try:
        target = Target(
            http=http_client,
            grpc=grpc_client,
            tolerance=tolerance,
            shapes=shapes or {},
            extensions=_extensions(http_client, url),
        )
        names = list(models) or _ready_models(http_client, url)
        first = target.of(names[0])
        yield from (_judged(case, first) for case in _OF_SERVER if only(case.__name__))
        for name in names:
            of_model = target.of(name)
            yield from (_judged(case, of_model) for case in _OF_MODEL if only(case.__name__))
    finally:
        if grpc_client is not None:
            grpc_client.close()


def _judged(case: _Case, target: Target) -> Result:
    verdict, reason = Verdict.PASSED, ""
    try:
        case(target)
    except NotOfferedError as error:
        verdict, reason = Verdict.NOT_OFFERED, str(error)
    except FailedError as error:
        verdict, reason = Verdict.FAILED, str(error)
    # What the server says may have any form: a case that stumbles over it has found a fault.
    except Exception as error:  # noqa: BLE001
        verdict, reason = Verdict.FAILED, f"{type(error).__name__}: {first_line(error)}"
    of_server = case in _OF_SERVER
    return Result(
        case=case.__name__,
        about=(case.__doc__ or "").strip(),
        model="" if of_server else target.model,
        verdict=verdict,
        reason=" ".join(reason.split()),
    )


def _extensions(http_client: HttpClient, url: str) -> frozenset[str]:
    """Ask what the server offers, which also finds out whether there is one."""
    try:
        said: Any = http_client.get("/v2").object()
    except (OSError, http.client.HTTPException) as error:
        raise ConfigurationError(f"{url} does not answer: {first_line(error)}") from error
    except FailedError as error:
        raise ConfigurationError(f"{url} is no server of this protocol: {error}") from error
    extensions = said.get("extensions")
    return frozenset(each for each in extensions or () if isinstance(each, str))


def _ready_models(http_client: HttpClient, url: str) -> list[str]:
    answer = http_client.post("/v2/repository/index", {})
    listed = answer.json() if answer.status == 200 else []
    names = [
        each["name"]
        for each in (listed if isinstance(listed, list) else [])
        if isinstance(each, dict) and each.get("state", "READY") == "READY" and "name" in each
    ]
    if not names:
        raise ConfigurationError(f"{url} lists no model that is ready; name one with --model")
    return list(dict.fromkeys(names))
