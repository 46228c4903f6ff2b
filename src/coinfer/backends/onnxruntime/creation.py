"""Create ONNX Runtime sessions, of whole models and of parts that pass values on.

A session with one thread runs in the calling thread and holds no pool, so one such session serves
every core. A session with more threads owns a pool. The pool spins only while a run lasts, because
only then the processor owns its cores. Each of the pool's threads has a core of its own, and the
first core is the caller's. Left alone, the system at times puts two of them on one core; the one
that spins there keeps the other from its work. ONNX Runtime's global pool is not used: once it is
set, every session of the process must use it, the host program's and the 1-thread ones too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from coinfer.backends.base import Tensor
from coinfer.backends.onnxruntime.arena import SHARED_ENTRIES, share
from coinfer.backends.onnxruntime.library import ort
from coinfer.backends.onnxruntime.providers import Provider
from coinfer.machine.processor import Processor
from coinfer.threads.pinning import placed_on

__all__ = ["AFFINITIES", "Call", "Style", "call_of", "create", "pool_cores", "session_options"]

AFFINITIES = "session.intra_op_thread_affinities"

_FATAL_ONLY = 4
"""Log level: errors come as exceptions; a second copy on stderr helps nobody."""

_KEPT = {
    "session.optimized_model_external_initializers_file_name": "weights.bin",
    "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
    "session.save_external_prepacked_constant_initializers": "1",
}
"""Configuration of a session that writes itself down; ONNX Runtime maps such a file."""

_UNPREPARED = {
    "session.disable_prepacking": "1",
    "session.save_external_prepacked_constant_initializers": "0",
}
"""Configuration of a session that never runs."""

Call = Callable[[Sequence[str], Mapping[str, Tensor], Any], list[Tensor]]
"""Runs a session: names of outputs, inputs by name, options of this run or None."""


class Style(NamedTuple):
    """What differs between sessions of one processor.

    Attributes:
        optimised: Let the library rewrite the graph.
        shared: Take memory for activations from where all sessions of this style take it. What one
            part of a model wrote last is then still in the caches when the next one takes memory.
        saved: Write the rewritten graph to this file.
        kept: Write it to this file, too, with weights in the form in which they are used in a file
            beside it: so the library can map them and need not hold them.
        bare: Write no weights in the form in which they are used, to `kept`; it is never run.
    """

    optimised: bool = True
    shared: bool = False
    saved: Path | None = None
    kept: Path | None = None
    bare: bool = False


def create(source: bytes | str, processor: Processor, provider: Provider, style: Style) -> Any:
    """Create a session; raises what the library raises."""
    options = session_options(processor, style)
    # A session with a pool of its own belongs to some cores: its weights should be near them.
    near = processor.cores if pool_cores(processor) else ()
    with placed_on(near):
        # With fallback the library would silently retry on the CPU.
        session = ort.InferenceSession(source, options, [provider], enable_fallback=0)
    # The wrapper keeps the serialized model, and so its weights, for a fallback that is off.
    if isinstance(source, bytes) and hasattr(session, "_model_bytes"):
        session._model_bytes = None
    return session


def call_of(session: Any) -> Call:
    """Return what runs a session, without what its wrapper looks after first.

    That is whether names are missing, which the library says too, and features that are not used
    here. Right after another run, with little Python left in the caches, it takes ten microseconds.
    """
    call: Call = getattr(session, "_sess", session).run
    return call


def pool_cores(processor: Processor) -> tuple[int, ...]:
    """Return the core of each thread of a session's pool; none if they are not pinned.

    They are, on Linux, where the processor names a core for each of its threads. The first is the
    caller's.
    """
    if sys.platform != "linux" or processor.device != "CPU" or AFFINITIES in processor.options:
        return ()
    cores = processor.cores
    return cores[1:] if len(set(cores)) == len(cores) == processor.threads else ()


def session_options(processor: Processor, style: Style) -> Any:
    """Return the options of a session: the processor's own above what its fields mean."""
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = (
        levels.ORT_ENABLE_ALL if style.optimised else levels.ORT_DISABLE_ALL
    )
    options.intra_op_num_threads = processor.threads
    options.inter_op_num_threads = 1
    entries = {
        "session.inter_op.allow_spinning": "0",
        "session.intra_op.allow_spinning": "1" if processor.threads > 1 else "0",
        "session.force_spinning_stop": "1",
        "session.record_ep_graph_assignment_info": "1",
    }
    if pinned := pool_cores(processor):
        # ONNX Runtime counts them from one.
        entries[AFFINITIES] = ";".join(str(core + 1) for core in pinned)
    if processor.device.startswith("CUDA:"):
        # Outside of the arena, which then can be given back while they stay.
        entries["session.use_device_allocator_for_initializers"] = "1"
    if style.saved is not None:
        options.optimized_model_filepath = str(style.saved)
    if style.kept is not None:
        options.optimized_model_filepath = str(style.kept)
        entries |= _KEPT
    if style.saved is not None or style.bare:
        entries |= _UNPREPARED
    if style.shared:
        share()
        # With a memory pattern all activations of a run are one piece, in a new place each time.
        options.enable_mem_pattern = False
        entries |= SHARED_ENTRIES
    entries |= {key: value for key, value in processor.options.items() if "." in key}
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    return options
