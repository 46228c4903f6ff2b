"""A small server of the protocol over HTTP: honest, or with one fault."""

from __future__ import annotations

import gzip
import json
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from oip.fake_model import DTYPES, EXTENSIONS, INPUTS, NAME, OUTPUTS, FakeModel, RefusedError

HEADER = "Inference-Header-Content-Length"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    model: FakeModel

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients go away in some cases: nobody needs to hear of it."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    @property
    def fault(self) -> str:
        return self.server.model.fault

    def do_GET(self) -> None:
        self._answer(b"")

    def do_DELETE(self) -> None:
        self._send(405, {}, b"{}")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def _answer(self, body: bytes) -> None:
        try:
            self._send(200, *self._said(body))
        except RefusedError as error:
            status = 500 if self.fault == "errors are the server's" else error.status
            text = str(error).encode()
            if self.fault != "errors are plain text":
                text = json.dumps({"error": str(error)}).encode()
            self._send(status, {}, text)

    def _send(self, status: int, headers: dict[str, str], data: bytes) -> None:
        coding = self.headers.get("Accept-Encoding", "")
        if status == 200 and coding == "gzip" and len(data) > 20:
            data = data if self.fault == "gzip that is none" else gzip.compress(data)
            headers["Content-Encoding"] = "gzip"
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)
        self.close_connection = True

    def _said(self, body: bytes) -> tuple[dict[str, str], bytes]:
        model, path = self.server.model, self.path.strip("/").split("/")
        match (self.command, path):
            case ("GET", ["v2", "health", "live" | "ready"]):
                return {}, b""
            case ("GET", ["v2"]):
                extensions = [*EXTENSIONS]
                if self.fault == "promises what is not there":
                    extensions.append("logging")
                if self.fault == "hides what is there":
                    extensions.remove("statistics")
                if self.fault == "no binary tensors":
                    extensions.remove("binary_tensor_data")
                said = {"name": "fake", "version": "1.0", "extensions": extensions}
                return {}, json.dumps(said).encode()
            case ("POST", ["v2", "repository", "index"]):
                listed = [{"name": NAME, "version": "1", "state": "READY", "reason": ""}]
                return {}, json.dumps(listed).encode()
            case ("GET", ["v2", "models", "stats"]):
                return {}, json.dumps({"model_stats": model.statistics()}).encode()
            case (_, ["v2", "models", name, "versions", version, *rest]):
                model.check_model(name, version)
                return self._of_model(rest, body)
            case (_, ["v2", "models", name, *rest]):
                model.check_model(name)
                return self._of_model(rest, body)
            case (_, ["v2", "systemsharedmemory", *rest]):
                return {}, json.dumps(self._memory(rest, body)).encode()
        raise RefusedError("no such path", 404)

    def _of_model(self, rest: list[str], body: bytes) -> tuple[dict[str, str], bytes]:
        model = self.server.model
        match rest:
            case []:
                return {}, json.dumps(model.metadata()).encode()
            case ["ready"]:
                return {}, b""
            case ["config"]:
                return {}, json.dumps(model.config()).encode()
            case ["stats"]:
                return {}, json.dumps({"model_stats": model.statistics()}).encode()
            case ["infer"]:
                return self._infer(body)
        raise RefusedError("no such path", 404)

    def _memory(self, rest: list[str], body: bytes) -> Any:
        model = self.server.model
        match rest:
            case ["status"] | ["region", _, "status"]:
                return [
                    {"name": n, "key": k, "offset": o, "byte_size": s}
                    for n, (k, o, s) in model.regions.items()
                ]
            case ["region", name, "register"]:
                model.register(name, json.loads(body))
            case ["region", name, "unregister"]:
                model.regions.pop(name, None)
        return {}

    def _unpacked(self, body: bytes) -> bytes:
        try:
            match self.headers.get("Content-Encoding"):
                case "gzip":
                    return gzip.decompress(body)
                case "deflate":
                    return zlib.decompress(body)
                case None:
                    return body
        except (OSError, EOFError, zlib.error) as error:
            raise RefusedError(str(error)) from error
        raise RefusedError("unknown coding", 415)

    def _infer(self, body: bytes) -> tuple[dict[str, str], bytes]:
        body, tail = self._unpacked(body), b""
        length = self.headers.get(HEADER)
        if length is not None:
            if self.fault == "no binary tensors":
                raise RefusedError("binary tensors", 500)
            if not length.isdecimal() or int(length) > len(body):
                raise RefusedError(f"{HEADER}: {length!r}")
            body, tail = body[: int(length)], body[int(length) :]
        try:
            said = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise RefusedError(f"no JSON: {error}") from error
        if not isinstance(said, dict) or not isinstance(said.get("inputs"), list):
            raise RefusedError("no inputs")
        arrays: dict[str, np.ndarray[Any, Any]] = {}
        for each in said["inputs"]:
            array, tail = self._input(each, tail)
            if each["name"] in arrays:
                raise RefusedError("an input twice")
            arrays[each["name"]] = array
        if tail and self.fault != "bytes left over":
            raise RefusedError(f"{len(tail)} bytes are left")
        return self._outputs(said, self.server.model.compute(arrays))

    def _input(self, said: Any, tail: bytes) -> tuple[np.ndarray[Any, Any], bytes]:
        model = self.server.model
        if not isinstance(said, dict):
            raise RefusedError("an input that is no object")
        name, datatype = said.get("name"), said.get("datatype")
        shape = model.check_shape(name, datatype, said.get("shape"))
        parameters = said.get("parameters", {})
        if "shared_memory_region" in parameters:
            return model.from_raw(str(name), shape, model.read(parameters)), tail
        if "binary_data_size" in parameters:
            size = parameters["binary_data_size"]
            if type(size) is not int or not 0 <= size <= len(tail):
                if self.fault != "sizes are not checked" or type(size) is not int:
                    raise RefusedError(f"binary_data_size {size!r}")
                size = int(np.prod(shape)) * 4
            return model.from_raw(str(name), shape, tail[:size]), tail[size:]
        try:
            array = np.array(said["data"])
            if array.dtype.kind not in "fi" or array.size != np.prod(shape):
                raise RefusedError(f"input {name!r}: data")
            return array.astype(DTYPES[INPUTS[str(name)][0]]).reshape(shape), tail
        except (KeyError, ValueError, TypeError) as error:
            raise RefusedError(f"input {name!r}: data: {error}") from error

    def _outputs(self, said: Any, found: dict[str, Any]) -> tuple[dict[str, str], bytes]:
        model = self.server.model
        asked = {each.get("name"): each.get("parameters", {}) for each in said.get("outputs", [])}
        default = said.get("parameters", {}).get("binary_data_output", False)
        outputs, tail = [], b""
        for name in model.wanted(list(asked)):
            array, given = found[name], asked.get(name, {})
            out: dict[str, Any] = {"name": name, "datatype": OUTPUTS[name][0]}
            out["shape"] = list(array.shape)
            if self.fault == "shapes without the batch":
                out["shape"] = out["shape"][1:]
            raw = array.astype(DTYPES[OUTPUTS[name][0]]).tobytes()
            if "shared_memory_region" in given:
                model.write(given, raw)
                out["parameters"] = given
            elif given.get("binary_data", default) and self.fault != "always JSON":
                out["parameters"] = {"binary_data_size": len(raw)}
                tail += raw[::-1] if self.fault == "bytes the other way round" else raw
            else:
                out["data"] = array.ravel().tolist()
            outputs.append(out)
        answer = {"model_name": NAME, "model_version": "1", "outputs": outputs}
        if "id" in said and self.fault != "no ids":
            answer["id"] = said["id"]
        text = json.dumps(answer).encode()
        if not tail:
            return {}, text
        length = len(text) + (1 if self.fault == "header length of the answer" else 0)
        return {HEADER: str(length), "Content-Type": "application/octet-stream"}, text + tail


@contextmanager
def http_server(fault: str = "") -> Iterator[tuple[str, FakeModel]]:
    """Serve over HTTP on a free port; yield the URL and the model behind it."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.model = FakeModel(fault)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", server.model
        finally:
            server.shutdown()
            thread.join()
