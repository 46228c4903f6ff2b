"""Known answers: binary answers whose heads were written before are sent with these heads again.

Answers to requests of one form with the same shapes differ in their tensors only.
"""

from __future__ import annotations

from coinfer.server.http.reply import Reply, head_of
from coinfer.server.http.sending import JOINED_BYTES
from coinfer.server.inference import Inference
from coinfer.server.request import InferResponse

__all__ = ["known_answer", "learn_answer"]


def known_answer(inference: Inference) -> bytes | None:
    """Return all bytes of a small answer; None: it is of another kind, and `write_infer` is to.

    Raises:
        CoinferError: as of `Inference.arrays`.
        CancelledError: it was cancelled.
    """
    heads = inference.checked.heads
    if not heads or inference.explain is not None:
        return None
    arrays, outputs = inference.arrays(), inference.request.outputs
    if outputs:
        arrays = {name: arrays[name] for name, _ in outputs}
    key: list[object] = []
    for name, array in arrays.items():
        key += (name, array.dtype, array.shape)
    head = heads.get(tuple(key))
    if head is None:
        return None
    return b"".join([head, *[array.tobytes() for array in arrays.values()]])


def learn_answer(inference: Inference, response: InferResponse, reply: Reply) -> None:
    """Keep the head of a small answer whose outputs are all binary, and what the model made."""
    size = sum(map(len, reply.parts))
    if inference.request.form is None or inference.explain is not None or size > JOINED_BYTES:
        return
    if len(reply.parts) != 1 + len(response.outputs):
        return
    arrays = inference.arrays()
    key: list[object] = []
    for name, _, shape, array, said in response.outputs:
        if array is None or said or array is not arrays[name]:
            return
        if array.dtype.kind in "OUS" or array.dtype.byteorder == ">":
            return
        key += (name, array.dtype, shape)
    inference.checked.learn(tuple(key), head_of(reply, keep_alive=True) + bytes(reply.parts[0]))
