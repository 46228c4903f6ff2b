"""HttpSender: calls over HTTP with binary tensors, over as many connections as are needed."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from coinfer.backends.base import Tensors
from coinfer.core.request import Outcome
from coinfer.errors import ConfigurationError, first_line
from coinfer.load_test.call import Answered, Call
from coinfer.load_test.http_connection import HttpConnection
from coinfer.model.datatypes import datatype_of
from coinfer.server.raw_tensors import to_raw

__all__ = ["HttpSender"]

_OUTCOMES = {
    429: Outcome.REJECTED,
    499: Outcome.CANCELLED,
    503: Outcome.REJECTED,
    504: Outcome.DROPPED,
}


class HttpSender:
    """Sends calls to a server over HTTP.

    Args:
        url: Of the server.
        connections: That are open at a time; further requests wait for one, and their latency
            counts that.
        token: A bearer token; None: none is sent.

    Raises:
        ConfigurationError: the URL is none of HTTP.
    """

    def __init__(self, url: str, *, connections: int = 1000, token: str | None = None) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError(f"{url!r} is no address such as http://127.0.0.1:8000")
        self._url = url
        self._host = parts.hostname
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._path = parts.path.rstrip("/")
        self._idle: list[HttpConnection] = []
        self._free = asyncio.Semaphore(connections)
        host = f"[{self._host}]" if ":" in self._host else self._host
        lines = [f"Host: {host}:{self._port}"]
        lines += [] if token is None else [f"Authorization: Bearer {token}"]
        self._lines = "\r\n".join(lines)

    def prepared(self, model: str, feed: Tensors) -> Call:
        """Write the JSON up to the parameters, and the tensors."""
        inputs, raw = [], []
        for name, array in feed.items():
            data = bytes(to_raw(array))
            said = {"name": name, "shape": list(array.shape), "datatype": _datatype(array)}
            inputs.append({**said, "parameters": {"binary_data_size": len(data)}})
            raw.append(data)
        text = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}})
        return Call(model, text.removesuffix("}}").encode(), b"".join(raw))

    async def inputs(self, model: str) -> dict[str, str]:
        """Ask for the metadata of a model."""
        path = f"{self._path}/v2/models/{quote(model, safe='')}"
        head = f"GET {path} HTTP/1.1\r\n{self._lines}\r\n\r\n"
        try:
            status, body = await self._ask([head.encode()])
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"{self._url} does not answer: {first_line(error)}") from error
        if status != 200:
            raise ConfigurationError(
                f"{self._url} does not serve model {model!r}: {_error(status, body)}"
            )
        try:
            return {each["name"]: each["datatype"] for each in json.loads(body)["inputs"]}
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(f"{self._url}: metadata of {model!r} make no sense") from error

    async def send(self, call: Call, parameters: Mapping[str, Any]) -> Answered:
        """Send a call; whatever happens is an outcome."""
        more = "".join(f", {json.dumps(name)}: {json.dumps(v)}" for name, v in parameters.items())
        text = call.head + more.encode() + b"}}"
        head = (
            f"POST {self._path}/v2/models/{quote(call.model, safe='')}/infer HTTP/1.1\r\n"
            f"{self._lines}\r\nContent-Type: application/octet-stream\r\n"
            f"Inference-Header-Content-Length: {len(text)}\r\n"
            f"Content-Length: {len(text) + len(call.tail)}\r\n\r\n"
        )
        try:
            status, body = await self._ask([head.encode() + text, call.tail])
        except (OSError, ssl.SSLError) as error:
            return Answered(Outcome.FAILED, first_line(error))
        if status == 200:
            return Answered(Outcome.COMPLETED)
        return Answered(_OUTCOMES.get(status, Outcome.FAILED), _error(status, body))

    async def close(self) -> None:
        """Close all connections."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    async def _ask(self, parts: list[bytes]) -> tuple[int, bytes]:
        async with self._free:
            connection, is_fresh = await self._connection()
            try:
                found = await connection.ask(parts)
            except ConnectionError:
                # A server may close an idle connection at the moment in which it is used again.
                if is_fresh or connection.has_heard:
                    raise
                connection = await self._opened()
                found = await connection.ask(parts)
            except BaseException:
                connection.close()
                raise
            if connection.is_open:
                self._idle.append(connection)
            return found

    async def _connection(self) -> tuple[HttpConnection, bool]:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection, False
        return await self._opened(), True

    async def _opened(self) -> HttpConnection:
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(
            HttpConnection, self._host, self._port, ssl=self._tls
        )
        return made


def _datatype(array: Any) -> str:
    return "BYTES" if array.dtype.kind in "OUS" else datatype_of(array.dtype)


def _error(status: int, body: bytes) -> str:
    """Return what the server says is wrong."""
    try:
        text = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        text = body[:200].decode(errors="replace")
    return f"status {status}: {' '.join(text.split())}"
