"""KnownAnswers: the heads of answers that were written before, to be sent again as they are.

Answers of a model with the same shapes differ in their tensors only.
"""

from __future__ import annotations

from coinfer.server.grpc.infer_answer import raw_head, write_head, write_infer
from coinfer.server.raw_tensors import Buffer, to_raw
from coinfer.server.request import InferResponse

__all__ = ["KnownAnswers"]

_MOST = 256
"""So many are kept; then all are forgotten, and those that still come are kept again."""


class KnownAnswers:
    """Writes serialized `ModelInferResponse`. Any thread may call it."""

    __slots__ = ("_heads",)

    def __init__(self) -> None:
        self._heads: dict[tuple[object, ...], bytes] = {}

    def write(self, response: InferResponse, *, is_final: bool = False) -> bytes:
        """Write an answer, as `write_infer` does."""
        model, version, identity, outputs, parameters = response
        if identity or parameters or is_final:
            return write_infer(response, is_final=is_final)
        key: list[object] = [model, version]
        parts: list[Buffer] = [b""]
        for name, datatype, shape, array, said in outputs:
            if array is None or said:
                return write_infer(response)
            key += (name, datatype, shape)
            raw = to_raw(array)
            parts += (raw_head(len(raw)), raw)
        of = tuple(key)
        head = self._heads.get(of)
        if head is None:
            if len(self._heads) >= _MOST:
                self._heads.clear()
            head = self._heads[of] = write_head(response)
        parts[0] = head
        return b"".join(parts)
