"""KnownMessages: requests whose fields were read before; the same bytes need not be read again.

Clients that ask a model again and again send the same message each time, but for its tensors.
"""

from __future__ import annotations

from typing import NamedTuple

from coinfer.server.grpc.infer_message import parse_rest, split_raw
from coinfer.server.limits import ServerLimits
from coinfer.server.raw_tensors import from_raw
from coinfer.server.request import InferRequest, InputTensor, RequestForm
from coinfer.server.shared_memory import SharedMemory

__all__ = ["KnownMessages"]

_MOST_BYTES = 2048
"""Of a message without its tensors that is kept."""

_MOST = 256
"""So many are kept; then all are forgotten, and those that still come are kept again."""


_new = tuple.__new__
"""Makes what every request needs: half the price of calling the class of a named tuple."""


class _Known(NamedTuple):
    """What a request that was read has beside its tensors: before and behind them; what these are.

    Of each: name, datatype, shape.
    """

    model: str
    rest: tuple[object, ...]
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
                _new(InputTensor, (name, datatype, from_raw(name, datatype, shape, contents)))
                for (name, datatype, shape), contents in zip(known.inputs, raw, strict=True)
            ]
            return _new(InferRequest, (known.model, inputs, *known.rest))
        request = parse_rest(head, raw, self._limits, memory)
        if len(head) <= _MOST_BYTES and not request.id and len(raw) == len(request.inputs):
            if len(self._found) >= _MOST:
                self._found.clear()
            of_each = tuple((each.name, each.datatype, each.array.shape) for each in request.inputs)
            request = request._replace(form=RequestForm())
            self._found[head] = _Known(request.model, request[2:], of_each)
        return request
