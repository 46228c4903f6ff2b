"""HTTP client of the suite: sends exactly what it is told, right or wrong. Knows no protocol."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from coinfer.errors import ConfigurationError
from coinfer.testing.oip.verdict import fail

__all__ = ["Answer", "HttpClient"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server answered.

    Attributes:
        status: The status code.
        headers: By name in lower case.
        body: As it came.
        asked: Method and path, for messages.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    asked: str

    def json(self) -> Any:
        """Return the body as JSON, without NaN and infinities, which JSON does not have."""
        try:
            return json.loads(self.body, parse_constant=_no_constant)
        except ValueError as error:
            return fail(f"{self.asked}: the body is no JSON: {error}: {self.body[:60]!r}")

    def object(self) -> dict[str, Any]:
        """Return the body as a JSON object, of an answer with status 200."""
        if self.status != 200:
            fail(f"{self.asked}: status {self.status}, not 200: {self.body[:200]!r}")
        found = self.json()
        if not isinstance(found, dict):
            fail(f"{self.asked}: the body is no JSON object: {self.body[:60]!r}")
        return dict(found)


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


class HttpClient:
    """Asks a server, each time over a fresh connection.

    Args:
        url: Of the server, such as `http://127.0.0.1:8000`; a path in it leads every path.
        timeout_s: Seconds until an answer is taken as none.
        headers: Sent with each request, e.g. a token.

    Raises:
        ConfigurationError: the URL is none of HTTP.
    """

    def __init__(
        self, url: str, timeout_s: float = 10.0, headers: Mapping[str, str] | None = None
    ) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError(f"{url!r} is no address such as http://127.0.0.1:8000")
        self.host = parts.hostname
        self._secure = parts.scheme == "https"
        self._port = parts.port or (443 if self._secure else 80)
        self._path = parts.path.rstrip("/")
        self._timeout_s = timeout_s
        self._headers = dict(headers or {})

    def get(self, path: str) -> Answer:
        """Send `GET`."""
        return self.ask("GET", path)

    def post(self, path: str, body: object, headers: Mapping[str, str] | None = None) -> Answer:
        """Send `POST` with bytes as they are, or with anything else as JSON."""
        if isinstance(body, bytes):
            return self.ask("POST", path, body, headers)
        content = {"Content-Type": "application/json", **(headers or {})}
        return self.ask("POST", path, json.dumps(body).encode(), content)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request and return the answer.

        Raises:
            OSError: there was none.
            http.client.HTTPException: what came is no answer of HTTP.
        """
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        with closing(kind(self.host, self._port, timeout=self._timeout_s)) as connection:
            sent = {**self._headers, **(headers or {})}
            connection.request(method, self._path + path, body=body, headers=sent)
            answer = connection.getresponse()
            return Answer(
                status=answer.status,
                headers={name.lower(): value for name, value in answer.getheaders()},
                body=answer.read(),
                asked=f"{method} {path}",
            )

    def send_half(self, path: str, body: bytes, *, claimed: int) -> None:
        """Send a `POST` that claims a longer body than it has, and go away."""
        if self._secure:
            return
        lines = [f"POST {self._path}{path} HTTP/1.1", f"Host: {self.host}"]
        lines += [f"{name}: {value}" for name, value in self._headers.items()]
        lines += ["Content-Type: application/json", f"Content-Length: {claimed}", "", ""]
        address = (self.host, self._port)
        with closing(socket.create_connection(address, timeout=self._timeout_s)) as connection:
            connection.sendall("\r\n".join(lines).encode() + body)
