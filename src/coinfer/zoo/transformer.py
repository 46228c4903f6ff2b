"""Encoders of token sequences: BERT (Devlin et al. 2019) and DistilBERT (Sanh et al. 2019).

As in Hugging Face's `modeling_bert.py`, for sequences of fixed length without padding, so there is
no mask and every token has type 0. Knows nothing of the zoo's table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_ir as ir

from coinfer.zoo.builder import NetworkBuilder
from coinfer.zoo.moments import Moments

__all__ = ["bert_base", "distilbert", "tiny_encoder"]

_ATTENTION_GAIN = 1.25
"""Queries and keys this much above unit deviation: each token then attends to a few others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sizes:
    layers: int
    width: int = 768
    heads: int = 12
    inner: int = 3072
    vocabulary: int = 30522
    positions: int = 512
    token_types: int = 0


def _embeddings(net: NetworkBuilder, ids: ir.Value, sizes: _Sizes) -> ir.Value:
    """Sum of word, position and type vectors, normalised: `(batch, tokens, width)`."""
    (tokens,) = net.shape(ids)
    with net.scope("embeddings"):
        words = net.embedding(sizes.vocabulary, sizes.width, name="word_embeddings")
        y = net.gather(words, ids, name="word_gather")
        table = net.embedding(sizes.positions, sizes.width, name="position_embeddings")
        y = net.add(y, net.rows(table, range(tokens), name="position_gather"), name="add_position")
        if sizes.token_types:
            types = net.embedding(sizes.token_types, sizes.width, name="token_type_embeddings")
            y = net.add(y, net.rows(types, [0], name="token_type_gather"), name="add_type")
        return net.layer_norm(y, name="LayerNorm")


def _heads(net: NetworkBuilder, x: ir.Value, sizes: _Sizes, gain: float, name: str) -> ir.Value:
    """Project and split into `(batch, heads, tokens, width / heads)`."""
    tokens, width = net.shape(x)
    y = net.dense(x, width, gain=gain, name=name)
    split = (tokens, sizes.heads, width // sizes.heads)
    return net.transpose(
        net.reshape(y, split, name=f"{name}.split"), (2, 1, 3), name=f"{name}.heads"
    )


def _attention(net: NetworkBuilder, x: ir.Value, sizes: _Sizes) -> ir.Value:
    """Multi-head self-attention with output projection."""
    tokens, width = net.shape(x)
    with net.scope("attention"):
        query = _heads(net, x, sizes, _ATTENTION_GAIN, "query")
        key = _heads(net, x, sizes, _ATTENTION_GAIN, "key")
        value = _heads(net, x, sizes, 1.0, "value")
        scores = net.matmul(query, net.transpose(key, (1, 3, 2), name="key_t"), name="scores")
        scores = net.scale(scores, 1 / math.sqrt(width / sizes.heads), name="scaled")
        weights = net.softmax(scores, name="softmax")
        # Averaging over the few attended tokens leaves about a tenth of the variance.
        context = net.matmul(weights, value, moments=Moments(variance=0.1), name="context")
        context = net.transpose(context, (2, 1, 3), name="context_t")
        context = net.reshape(context, (tokens, width), name="context_joined")
        return net.dense(context, width, name="output")


def _layer(net: NetworkBuilder, x: ir.Value, sizes: _Sizes) -> ir.Value:
    """Attention and feed-forward, each added to its input and normalised."""
    y = net.add(x, _attention(net, x, sizes), name="attention.add")
    x = net.layer_norm(y, name="attention.LayerNorm")
    y = net.gelu(net.dense(x, sizes.inner, name="intermediate"), name="gelu")
    y = net.add(x, net.dense(y, sizes.width, name="output"), name="add")
    return net.layer_norm(y, name="LayerNorm")


def _encoder(net: NetworkBuilder, ids: ir.Value, sizes: _Sizes) -> ir.Value:
    y = _embeddings(net, ids, sizes)
    for index in range(sizes.layers):
        with net.scope(f"encoder.layer.{index}"):
            y = _layer(net, y, sizes)
    return y


def bert_base(net: NetworkBuilder, ids: ir.Value) -> None:
    """BERT-base encoder with pooler; token ids `(batch, tokens)` below 30,522."""
    hidden = _encoder(net, ids, _Sizes(layers=12, token_types=2))
    with net.scope("pooler"):
        pooled = net.gemm(net.first_token(hidden, name="first_token"), 768, name="dense")
        pooled = net.tanh(pooled, name="tanh")
    net.output(hidden, "last_hidden_state")
    net.output(pooled, "pooler_output")


def distilbert(net: NetworkBuilder, ids: ir.Value) -> None:
    """DistilBERT encoder; token ids `(batch, tokens)` below 30,522."""
    net.output(_encoder(net, ids, _Sizes(layers=6)), "last_hidden_state")


def tiny_encoder(net: NetworkBuilder, ids: ir.Value) -> None:
    """Encoder of two narrow layers, for tests; token ids `(batch, tokens)` below 100."""
    sizes = _Sizes(layers=2, width=32, heads=4, inner=64, vocabulary=100, positions=16)
    net.output(_encoder(net, ids, sizes), "last_hidden_state")
