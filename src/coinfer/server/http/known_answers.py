"""KnownAnswers: the heads of binary answers that were written before, to be sent again as they are.

Answers of a model with the same shapes differ in their tensors only.
"""

from __future__ import annotations

from coinfer.model.datatypes import BYTES
from coinfer.server.http.infer_answer import write_infer
from coinfer.server.http.reply import head_of
from coinfer.server.raw_tensors import to_raw
from coinfer.server.request import InferRequest, InferResponse

__all__ = ["KnownAnswers"]

_MOST = 256
"""So many are kept; then all are forgotten, and those that still come are kept again."""


class KnownAnswers:
    """Writes small answers whose outputs are all binary. For the thread of an event loop."""

    __slots__ = ("_heads",)

    def __init__(self) -> None:
        self._heads: dict[tuple[object, ...], bytes] = {}

    def whole(self, request: InferRequest, response: InferResponse) -> bytes | None:
        """Return all bytes of an answer; None: it is of another kind, and `write_infer` is to."""
        model, version, identity, outputs, parameters = response
        if identity or parameters:
            return None
        by_default = request.parameters.get("binary_data_output") is True
        if not by_default and not request.outputs:
            return None
        for _, wanted in request.outputs:
            if wanted.get("binary_data", by_default) is not True:
                return None
        key: list[object] = [model, version]
        parts: list[bytes | bytearray | memoryview] = [b""]
        for name, datatype, shape, array, said in outputs:
            if array is None or said or datatype == BYTES:
                return None
            key += (name, datatype, shape)
            parts.append(to_raw(array))
        of = tuple(key)
        head = self._heads.get(of)
        if head is None:
            if len(self._heads) >= _MOST:
                self._heads.clear()
            reply = write_infer(request, response)
            head = self._heads[of] = head_of(reply, keep_alive=True) + bytes(reply.parts[0])
        parts[0] = head
        return b"".join(parts)
