"""Routes: what HTTP answers beside inferences: health, metadata, models, shared memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, NoReturn
from urllib.parse import parse_qs

import orjson

from coinfer.errors import (
    InputError,
    MethodNotAllowedError,
    NotOfferedError,
    UnknownNameError,
)
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

_Actions = Mapping[str, Callable[[], Reply | Awaitable[Reply]] | None]
"""By method, what it does."""

_GET, _POST = "GET", "POST"


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
            MethodNotAllowedError: there is such a thing, and another method is for it.
            CoinferError: it is refused, or there is no such thing.
        """
        first, *rest = ask.path
        actions: _Actions = {}
        if first in self._pages and not rest:
            actions = {_GET: partial(self._pages[first], ask)}
        elif first == "v2":
            actions = self._actions(rest, ask)
        shown = "/".join(ask.path)[:200]
        if not actions:
            raise UnknownNameError(f"there is no {ask.method} /{shown} here; see /v2")
        action = actions.get(_GET if ask.method == "HEAD" else ask.method)
        if action is None:
            raise MethodNotAllowedError.of(ask.method, f"/{shown}", _allowed(actions))
        found = action()
        return found if isinstance(found, Reply) else await found

    def _actions(self, path: list[str], ask: Ask) -> _Actions:
        """Return what each method does with a path of the protocol; nothing: there is none."""
        service = self._service
        match path:
            case []:
                return {_GET: lambda: of_json(service.metadata())}
            case ["health", "live"]:
                return {_GET: lambda: _health(service.is_live)}
            case ["health", "ready"]:
                return {_GET: lambda: _health(service.is_ready)}
            case ["models", "stats"]:
                return {_GET: lambda: of_json(service.model_statistics())}
            case ["trace", "setting"] | ["logging"] | ["models", _, "trace", "setting"]:
                return _not_offered("trace and log settings")
            case ["models", name, "versions", version, *what] if len(what) <= 1:
                return self._of_model(name, version, *what)
            case ["models", name, *what] if len(what) <= 1:
                return self._of_model(name, "", *what)
            case ["repository", "index"]:
                return {_POST: partial(self._index, ask)}
            case ["repository", "models", name, "load"]:
                return {_POST: partial(self._load, name, ask)}
            case ["repository", "models", name, "unload"]:
                return {_POST: partial(self._unload, name)}
            case ["cudasharedmemory", *_]:
                return _not_offered("shared memory of CUDA devices")
            case ["systemsharedmemory", *rest]:
                return self._of_memory(rest, ask)
        return {}

    def _of_model(self, name: str, version: str, what: str = "") -> _Actions:
        service = self._service
        match what:
            case "":
                return {_GET: lambda: of_json(service.model_metadata(name, version))}
            case "ready":
                return {_GET: lambda: _health(service.is_model_ready(name, version))}
            case "config":
                return {_GET: lambda: of_json(service.model_config(name, version))}
            case "stats":
                return {_GET: lambda: of_json(service.model_statistics(name, version))}
            case "infer":  # that is answered before it comes here
                return {_POST: None}
        return {}

    async def _index(self, ask: Ask) -> Reply:
        only_ready = ask.json().get("ready") is True
        return of_json(
            await asyncio.to_thread(self._service.repository_index, only_ready=only_ready)
        )

    async def _load(self, name: str, ask: Ask) -> Reply:
        parameters = ask.json().get("parameters") or {}
        if not isinstance(parameters, dict):
            raise InputError("'parameters' must be an object")
        await asyncio.to_thread(self._service.load_model, name, parameters)
        return of_json({})

    async def _unload(self, name: str) -> Reply:
        await asyncio.to_thread(self._service.unload_model, name)
        return of_json({})

    def _of_memory(self, rest: list[str], ask: Ask) -> _Actions:
        memory = self._service.shared_memory
        if memory is None:
            return _not_offered("shared memory")
        match rest:
            case ["status"]:
                return {_GET: lambda: _regions(memory)}
            case ["region", name, "status"]:
                return {_GET: lambda: _regions(memory, name)}
            case ["region", name, "register"]:
                return {_POST: lambda: _register(memory, name, ask.json())}
            case ["region", name, "unregister"]:
                return {_POST: lambda: _unregister(memory, name)}
            case ["unregister"]:
                return {_POST: lambda: _unregister(memory)}
        return {}


def _allowed(actions: _Actions) -> list[str]:
    return sorted({*actions, *(("HEAD",) if _GET in actions else ())})


def _regions(memory: SharedMemory, *names: str) -> Reply:
    return of_json([region.to_json() for region in memory.status(*names)])


def _unregister(memory: SharedMemory, *names: str) -> Reply:
    memory.unregister(*names)
    return of_json({})


def _register(memory: SharedMemory, name: str, said: Mapping[str, Any]) -> Reply:
    memory.register(name, said.get("key"), said.get("offset", 0), said.get("byte_size"))
    return of_json({})


def _health(is_well: bool) -> Reply:
    return Reply(200 if is_well else 503, (), (b"",))


def _not_offered(what: str) -> _Actions:
    def refuse() -> NoReturn:
        raise NotOfferedError(f"this server does not offer {what}; /v2 lists its extensions")

    return {_GET: refuse, _POST: refuse}
