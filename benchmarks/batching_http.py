"""Ways to serve batches over HTTP, for `batching.py`: coinfer's own server, and others.

All servers are up and are asked in turn by a client that is a process of its own on the same
cores. Those whose turn it is not are stopped (SIGSTOP), because some of them spin while they are
idle. What a server collects is `serving_peers.py`.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from batching_load import UNDER_WAY, Asks, Result, in_shares, result_of
from batching_networks import Feed
from rounds import output_of
from serving import HERE, ours, running_peer

__all__ = ["HttpWay", "http_ways"]

_CYCLE = 4000


class Family:
    """Processes that were started by this one since `before`, with all that they start."""

    def __init__(self, before: set[int]) -> None:
        self.roots = [each for each in psutil.Process().children() if each.pid not in before]

    def send(self, number: signal.Signals) -> None:
        """Send a signal to all that are left."""
        for root in self.roots:
            try:
                members = [root, *root.children(recursive=True)]
            except psutil.NoSuchProcess:
                continue
            for member in members:
                with suppress(ProcessLookupError):
                    os.kill(member.pid, number)


class HttpWay:
    """A server and how it is asked.

    Attributes:
        port: Its port.
        is_ours: Whether it speaks the Open Inference Protocol, and knows deadlines; else bodies are
            the bytes of the tensor alone.
        family: Its processes, which are stopped between its turns.
    """

    def __init__(
        self,
        folder: Path,
        port: int,
        is_ours: bool,
        feeds: Mapping[str, Sequence[Feed]],
        family: Family,
    ) -> None:
        self.folder, self.port, self.is_ours, self.feeds = folder, port, is_ours, feeds
        self.family = family

    def played(self, asks: Asks) -> Result:
        """Ask at these moments."""
        kinds = list(dict.fromkeys(ask for _, ask in asks))
        numbers = {ask: at for at, ask in enumerate(kinds)}
        said = self._said(
            requests=[self._request(*ask) for ask in kinds],
            asks=[(after_s, numbers[ask]) for after_s, ask in asks],
        )
        return result_of(asks, said["latencies_s"], said["took_s"])

    def saturated(self, rates_per_s: Mapping[str, float], seconds: float) -> Result:
        """Keep requests under way for so long."""
        feeds = {name: len(each) for name, each in self.feeds.items() if name in rates_per_s}
        turn = list(itertools.islice(in_shares(rates_per_s, feeds), _CYCLE))
        kinds = list(dict.fromkeys(turn))
        numbers = {ask: at for at, ask in enumerate(kinds)}
        said = self._said(
            requests=[self._request(*ask) for ask in kinds],
            turn=[numbers[ask] for ask in turn],
            at_once=UNDER_WAY,
            seconds=seconds,
        )
        counts = dict.fromkeys(feeds, 0)
        for number, count in said["counts"].items():
            counts[kinds[int(number)].name] += count
        per_s = sum(counts.values()) / said["took_s"]
        return Result(per_s=per_s, latencies_s={}, in_time=counts, asked=counts)

    def _said(self, *, requests: Sequence[bytes], **what: Any) -> dict[str, Any]:
        file = self.folder / "asks.json"
        texts = [each.hex() for each in requests]
        file.write_text(json.dumps({"port": self.port, "requests": texts, **what}))
        self.family.send(signal.SIGCONT)
        try:
            said = output_of([sys.executable, HERE / "batching_client.py", file])
        finally:
            self.family.send(signal.SIGSTOP)
        found: dict[str, Any] = json.loads(said)
        return found

    def _request(self, name: str, feed: int, deadline_s: float) -> bytes:
        inputs = self.feeds[name][feed]
        if self.is_ours:
            path, headers, body = f"/v2/models/{name}/infer", *_protocol_body(inputs, deadline_s)
        else:
            path, headers = f"/{name}", "Content-Type: application/octet-stream\r\n"
            body = _raw_body(inputs, is_open=len(self.feeds[name]) > 1)
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
        return head.encode() + body


def _protocol_body(inputs: Feed, deadline_s: float) -> tuple[str, bytes]:
    tensors = [
        {
            "name": name,
            "datatype": {"float32": "FP32", "int64": "INT64"}[str(array.dtype)],
            "shape": array.shape,
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, array in inputs.items()
    ]
    said: dict[str, Any] = {"binary_data_output": True}
    if deadline_s:
        said["timeout"] = int(deadline_s * 1e6)
    head = json.dumps({"inputs": tensors, "parameters": said}).encode()
    body = head + b"".join(array.tobytes() for array in inputs.values())
    return f"Inference-Header-Content-Length: {len(head)}\r\n", body


def _raw_body(inputs: Feed, *, is_open: bool) -> bytes:
    """The one tensor; in front of it what of its sizes is open: those of a picture."""
    [array] = inputs.values()
    head = np.array(array.shape[2:], np.int32).tobytes() if is_open else b""
    return head + array.tobytes()


def http_ways(
    stack: ExitStack,
    folder: Path,
    feeds: Mapping[str, Sequence[Feed]],
    most: Mapping[str, int],
    python: str,
    peers: Sequence[str],
) -> dict[str, HttpWay]:
    """Start coinfer's server, with and without batching, and the others; all serve a folder."""
    found = {}

    def add(title: str, port: int, is_ours: bool, before: set[int]) -> None:
        family = Family(before)
        stack.callback(family.send, signal.SIGCONT)  # so that it can end
        family.send(signal.SIGSTOP)
        found[title] = HttpWay(folder.parent, port, is_ours, feeds, family)

    for kind, title in (("coinfer", "coinfer auto, HTTP"), ("apart", "coinfer off, HTTP")):
        before = {each.pid for each in psutil.Process().children()}
        ports = stack.enter_context(ours(folder.parent, kind, str(folder)))
        add(title, ports["http"], True, before)
    for peer in peers:
        before = {each.pid for each in psutil.Process().children()}
        batches = json.dumps(dict(most))
        port = stack.enter_context(running_peer(python, peer, str(folder), batches))
        add(f"{peer}, HTTP", port, False, before)
    return found
