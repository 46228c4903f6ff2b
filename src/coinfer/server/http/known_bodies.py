"""KnownBodies: the JSON of inferences that was read before; the same bytes need not be read again.

Clients that send tensors as binary data send the same JSON before them each time.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from coinfer.server.http.infer_steps import InferSteps
from coinfer.server.request import InferRequest, InputTensor, RequestForm

__all__ = ["KnownBodies"]

_MOST_BYTES = 2048
"""Of JSON that is kept."""

_MOST = 256
"""So many are kept; then all are forgotten, and those that still come are kept again."""

_LOOKED_INTO = ("BOOL", "BYTES")
"""Their bytes are not any bytes."""


_new = tuple.__new__
"""Makes what every request needs: half the price of calling the class of a named tuple."""

_array = np.ndarray


class _Known(NamedTuple):
    """What a request that was read has behind its tensors, and where these are.

    Of each: name, datatype, dtype, shape, first byte, and the one after its last.
    """

    rest: tuple[object, ...]
    n_bytes: int
    inputs: tuple[tuple[str, str, np.dtype[Any], tuple[int, ...], int, int], ...]


class KnownBodies:
    """Reads the bodies of small inferences. For the thread of an event loop.

    Args:
        steps: Reads those that are not known.
    """

    def __init__(self, steps: InferSteps) -> None:
        self._steps = steps
        self._found: dict[tuple[str, str, bytes], _Known] = {}

    def parse(
        self, model: str, version: str, body: bytes, header_length: int | None
    ) -> InferRequest:
        """Read a body.

        Raises:
            CoinferError: as of `parse_infer`.
        """
        if header_length is None or header_length > _MOST_BYTES:
            return self._steps.parse(model, version, body, header_length)
        key = (model, version, body[:header_length])
        known = self._found.get(key)
        if known is not None and known.n_bytes == len(body):
            # Each a copy, which is aligned.
            inputs = [
                _new(InputTensor, (name, datatype, _array(shape, dtype, body[at:end])))
                for name, datatype, dtype, shape, at, end in known.inputs
            ]
            return _new(InferRequest, (model, inputs, *known.rest))
        request = self._steps.parse(model, version, body, header_length)
        form = RequestForm()
        known = _known(request, form, header_length, len(body))
        if known is None:
            return request
        if len(self._found) >= _MOST:
            self._found.clear()
        self._found[key] = known
        return request._replace(form=form)


def _known(
    request: InferRequest, form: RequestForm, header_length: int, n_bytes: int
) -> _Known | None:
    """Return what is to be kept of a request; None: it is of one request only."""
    if request.id:
        return None
    at, inputs = header_length, []
    for name, datatype, array in request.inputs:
        if datatype in _LOOKED_INTO or not array.nbytes:
            return None
        end = at + array.nbytes
        inputs.append((name, datatype, array.dtype, array.shape, at, end))
        at = end
    if at != n_bytes:  # else some are in the JSON, or in shared memory
        return None
    return _Known((*request[2:-1], form), n_bytes, tuple(inputs))
