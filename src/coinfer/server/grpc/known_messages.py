"""KnownMessages: requests whose fields were read before; the same bytes need not be read again.

Clients that ask a model again and again send the same message each time, but for its tensors.
"""

from __future__ import annotations

from typing import NamedTuple

from coinfer.server.grpc.infer_message import parse_rest, split_raw
from coinfer.server.limits import ServerLimits
from coinfer.server.raw_tensors import from_raw
from coinfer.server.request import InferRequest, InputTensor
from coinfer.server.shared_memory import SharedMemory

__all__ = ["KnownMessages"]

_MOST_BYTES = 2048
"""Of a message without its tensors that is kept."""

_MOST = 256
"""So many are kept; then all are forgotten, and those that still come are kept again."""


class _Known(NamedTuple):
    """A request that was read, and what its tensors are: name, datatype, shape."""

    request: InferRequest
    inputs: tuple[tuple[str, str, tuple[int, ...]], ...]


class KnownMessages:
    """Reads serialized `ModelInferRequest`. Any thread may call it.

    Args:
        limits: What a request may have.
    """

    def __init__(self, limits: ServerLimits) -> None:
        self._limits = limits
        self._found: dict[bytes, _Known] = {}

    def parse(self, data: bytes, memory: SharedMemory | None) -> InferRequest:
        """Read a request, as `parse_infer` does.

        Raises:
            CoinferError: as of `parse_infer`.
        """
        head, raw = split_raw(data, self._limits)
        known = self._found.get(head)
        if known is not None and len(raw) == len(known.inputs):
            inputs = [
                InputTensor(name, datatype, from_raw(name, datatype, shape, contents))
                for (name, datatype, shape), contents in zip(known.inputs, raw, strict=True)
            ]
            return known.request._replace(inputs=inputs)
        request = parse_rest(head, raw, self._limits, memory)
        if len(head) <= _MOST_BYTES and not request.id and len(raw) == len(request.inputs):
            if len(self._found) >= _MOST:
                self._found.clear()
            of_each = tuple((each.name, each.datatype, each.array.shape) for each in request.inputs)
            self._found[head] = _Known(request._replace(inputs=()), of_each)
        return request
