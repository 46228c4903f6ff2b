"""Routes: what HTTP answers beside inferences: health, metadata, models, shared memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import orjson

from coinfer.errors import InputError, NotOfferedError, UnknownNameError
from coinfer.server.http.reply import Reply, of_json
from coinfer.server.service import Service
from coinfer.server.shared_memory import SharedMemory

__all__ = ["Ask", "Page", "Routes"]


class Ask(NamedTuple):
    """What is asked.

    Attributes:
        method: Of HTTP.
        path: Its parts.
        body: All of it, unpacked.
        query: What follows the question mark.
    """

    method: str
    path: tuple[str, ...]
    body: bytes = b""
    query: bytes = b""

    def json(self) -> Mapping[str, Any]:
        """Return the body, which may be empty, as an object.

        Raises:
            InputError: it is none.
        """
        if not self.body.strip():
            return {}
        try:
            found = orjson.loads(self.body)
        except orjson.JSONDecodeError as error:
            raise InputError(f"the request is not JSON: {str(error)[:200]}") from None
        if not isinstance(found, dict):
            raise InputError("the request must be a JSON object")
        return found

    def option(self, name: str, default: str) -> str:
        """Return what the query gives a name."""
        return parse_qs(self.query.decode("latin-1")).get(name, [default])[-1]


Page = Callable[[Ask], Awaitable[Reply]]


class Routes:
    """Finds who answers.

    Args:
        service: What answers.
        pages: By first part of the path, what is no part of the protocol, such as `metrics`.
    """

    def __init__(self, service: Service, pages: Mapping[str, Page]) -> None:
        self._service = service
        self._pages = pages

    async def answer(self, ask: Ask) -> Reply:
        """Answer what was asked.

        Raises:
            CoinferError: it is refused, or there is no such thing.
        """
        page = self._pages.get(ask.path[0])
        if page is not None and len(ask.path) == 1:
            return await page(ask)
        if ask.path[0] == "v2":
            found = None
            if ask.method == "POST":
                found = await self._post(ask)
            elif ask.method in ("GET", "HEAD"):
                found = await self._get(ask)
            if found is not None:
                return found
        shown = "/".join(ask.path)[:200]
        raise UnknownNameError(f"there is no {ask.method} /{shown} here; see /v2")

    async def _get(self, ask: Ask) -> Reply | None:
        service = self._service
        match ask.path[1:]:
            case []:
                return of_json(service.metadata())
            case ["health", "live"]:
                return _health(service.is_live)
            case ["health", "ready"]:
                return _health(service.is_ready)
            case ["models", "stats"]:
                return of_json(service.model_statistics())
            case ["models", name, "versions", version, *what] if len(what) <= 1:
                return self._model(name, version, *what)
            case ["models", name, *what] if len(what) <= 1:
                return self._model(name, "", *what)
            case [("systemsharedmemory" | "cudasharedmemory") as kind, *rest]:
                return self._shared_memory(kind, [*rest], ask)
            case ["trace", "setting"] | ["logging"] | ["models", _, "trace", "setting"]:
                raise _not_offered("trace and log settings")
        return None

    def _model(self, name: str, version: str, what: str = "") -> Reply | None:
        service = self._service
        match what:
            case "":
                return of_json(service.model_metadata(name, version))
            case "ready":
                return _health(service.is_model_ready(name, version))
            case "config":
                return of_json(service.model_config(name, version))
            case "stats":
                return of_json(service.model_statistics(name, version))
        return None

    async def _post(self, ask: Ask) -> Reply | None:
        service = self._service
        match ask.path[1:]:
            case ["repository", "index"]:
                only_ready = ask.json().get("ready") is True
                index = await asyncio.to_thread(service.repository_index, only_ready=only_ready)
                return of_json(index)
            case ["repository", "models", name, "load"]:
                parameters = ask.json().get("parameters") or {}
                if not isinstance(parameters, dict):
                    raise InputError("'parameters' must be an object")
                await asyncio.to_thread(service.load_model, name, parameters)
                return of_json({})
            case ["repository", "models", name, "unload"]:
                await asyncio.to_thread(service.unload_model, name)
                return of_json({})
            case [("systemsharedmemory" | "cudasharedmemory") as kind, *rest]:
                return self._shared_memory(kind, [*rest], ask)
            case ["trace", "setting"] | ["logging"] | ["models", _, "trace", "setting"]:
                raise _not_offered("trace and log settings")
        return None

    def _shared_memory(self, kind: str, rest: list[str], ask: Ask) -> Reply | None:
        memory = self._service.shared_memory
        if kind == "cudasharedmemory":
            raise _not_offered("shared memory of CUDA devices")
        if memory is None:
            raise _not_offered("shared memory")
        match rest:
            case ["status"] if ask.method == "GET":
                return of_json([region.to_json() for region in memory.status()])
            case ["region", name, "status"] if ask.method == "GET":
                return of_json([region.to_json() for region in memory.status(name)])
            case ["region", name, "register"] if ask.method == "POST":
                return _register(memory, name, ask.json())
            case ["region", name, "unregister"] if ask.method == "POST":
                memory.unregister(name)
                return of_json({})
            case ["unregister"] if ask.method == "POST":
                memory.unregister()
                return of_json({})
        return None


def _register(memory: SharedMemory, name: str, said: Mapping[str, Any]) -> Reply:
    memory.register(name, said.get("key"), said.get("offset", 0), said.get("byte_size"))
    return of_json({})


def _health(is_well: bool) -> Reply:
    return Reply(200 if is_well else 503, (), (b"",))


def _not_offered(what: str) -> NotOfferedError:
    return NotOfferedError(f"this server does not offer {what}; /v2 lists its extensions")
