"""The networks of `batching.py`, and what is asked of them. Measures nothing.

`minilm` is an encoder of the shape of all-MiniLM-L6-v2 with 16 tokens, `wide` is three dense layers
of 2,048 x 2,048 and `dense` three of 1,024 x 1,024, `mobilenet` is MobileNetV2, and `detector` is
that of `examples/open_sizes.py`, whose height and width are open: it is asked for pictures of three
sizes. Others are networks of the zoo.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coinfer.model import Model, load_model, model_from_ir
from coinfer.planner.model_source import resolve_model
from coinfer.zoo.builder import NetworkBuilder

__all__ = ["FLAGSHIP", "Feed", "feeds_of", "network"]

FLAGSHIP = ("minilm", "wide", "mobilenet", "detector")
WIDTHS = {"dense": 1024, "wide": 2048}
PICTURES = ((96, 128), (128, 160), (192, 256))
EXAMPLES = Path(__file__).parents[1] / "examples"

Feed = Mapping[str, "np.ndarray[Any, Any]"]


def network(name: str) -> Model:
    """Build one by name."""
    if width := WIDTHS.get(name):
        net = NetworkBuilder(name, seed=0)
        y = net.input("x", (width,))
        for layer in range(3):
            y = net.relu(net.gemm(y, width, name=f"fc{layer}"), name=f"relu{layer}")
        net.output(y, "y")
        return model_from_ir(net.model("three dense layers"), name=name)
    if name == "minilm":
        from fusion import encoder

        return model_from_ir(encoder(0), name=name)
    if name == "detector":
        sys.path.insert(0, str(EXAMPLES))
        from open_sizes import write

        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder))
            return load_model(Path(folder) / "detector.onnx", name=name)
    return resolve_model(f"zoo:{'mobilenet_v2' if name == 'mobilenet' else name}", name=name)


def feeds_of(name: str, model: Model) -> Sequence[Feed]:
    """Return what it is asked, in turn: of each size one sample."""
    if name != "detector":
        return [model.sample_inputs()]
    return [model.sample_inputs(dims={"height": high, "width": wide}) for high, wide in PICTURES]
