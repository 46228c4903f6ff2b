"""Arena: the memory for activations that the parts of models share, and how to give it back.

ONNX Runtime's arena keeps all memory that it ever took. At the end of a run it gives the unused
regions back if the run asks for that. So a run of a tiny model is used to shrink the arena.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, partial
from typing import Any

import numpy as np

from coinfer.backends.onnxruntime.library import LIBRARY_ERRORS, ort

__all__ = ["SHARED_ENTRIES", "give_back", "one_operator", "share", "shrinking"]

SHARED_ENTRIES = {
    "session.use_env_allocators": "1",
    # Weights stay outside of the arena: closing a session then frees them at once.
    "session.use_device_allocator_for_initializers": "1",
}
"""Configuration of a session that takes its memory from the arena."""

_SHRINK = ("memory.enable_memory_arena_shrinkage", "cpu:0")
_OPSET = 17
_IR_VERSION = 8


@cache
def share() -> Callable[[], object]:
    """Make the process's arena and return what shrinks it.

    Sessions use it only if their options say so.

    Whoever calls it first holds the lock under which sessions are created.
    """
    info = ort.OrtMemoryInfo(
        "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    )
    with suppress(*LIBRARY_ERRORS):  # the host program has made one before: then it is that
        ort.create_and_register_allocator(info, None)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    for entry in SHARED_ENTRIES.items():
        options.add_session_config_entry(*entry)
    model = one_operator("Neg", [1])
    session = ort.InferenceSession(model, options, ["CPUExecutionProvider"])
    return partial(session.run, ["y"], {"x": np.zeros(1, np.float32)}, shrinking())


@cache
def shrinking() -> Any:
    """Return the options of a run after which the arena gives back what nothing lives in."""
    options = ort.RunOptions()
    options.add_run_config_entry(*_SHRINK)
    return options


def give_back() -> None:
    """Give the system what nothing lives in; parts that run afterwards take memory anew."""
    if share.cache_info().currsize:
        with suppress(*LIBRARY_ERRORS):  # what the host program has made may be no arena
            share()()


def one_operator(
    op_type: str, shape: Sequence[int | str], domain: str = "", **attributes: int
) -> bytes:
    """Make a model of one operator that takes a float `x` of this shape and gives `y`."""
    import onnx_ir as ir  # slow to import, and needed for parts only

    value = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))
    node = ir.node(op_type, [value], attributes, domain=domain)
    [made] = node.outputs
    made.name, made.type, made.shape = "y", value.type, ir.Shape([None] * len(shape))
    opsets = {domain: 1, "": _OPSET}
    graph = ir.Graph([value], [made], nodes=[node], opset_imports=opsets, name=op_type)
    data: bytes = ir.to_proto(ir.Model(graph, ir_version=_IR_VERSION)).SerializeToString()
    return data
