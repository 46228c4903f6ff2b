"""Compile a model with CUDA's provider, so that its executions can be repeated as CUDA graphs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from functools import cache, partial
from typing import Any

from coinfer.backends.device_faults import Fault, fault_of
from coinfer.backends.onnxruntime.compiling import compiled
from coinfer.backends.onnxruntime.device_session import OnnxRuntimeDeviceSession
from coinfer.backends.onnxruntime.gpu import Gpu
from coinfer.backends.onnxruntime.library import LIBRARY_ERRORS, ort
from coinfer.backends.onnxruntime.providers import Provider
from coinfer.backends.onnxruntime.session import OnnxRuntimeSession
from coinfer.errors import BackendError, ExecutionError, first_line
from coinfer.machine.processor import Processor
from coinfer.model import Model
from coinfer.quiet import quiet

__all__ = ["compiled_for_gpu"]

_GRAPHS = "enable_cuda_graph"


def compiled_for_gpu(
    model: Model, processor: Processor, provider: Provider, common: Mapping[str, Any], gpu: Gpu
) -> OnnxRuntimeSession:
    """Compile a model, and run it twice unless it takes several sizes: then it is as fast as ever.

    Args:
        model: A model or a part of one.
        processor: Where it is to run.
        provider: CUDA's, with its options.
        common: What any session of it is told.
        gpu: Where its device is.

    Raises:
        BackendError: ONNX Runtime refuses the graph, the provider took nothing of it, the device is
            lost, or its executions must be repeated as graphs and cannot.
    """
    what = common["what"]
    if gone := gpu.lost.gone(gpu.name):
        raise BackendError(f"{what}: {gone}")
    _preload()
    name, options = provider
    # Each size that comes would be searched for, for seconds, while its request waits.
    search = "HEURISTIC" if model.open_dims else "EXHAUSTIVE"
    options = {"cudnn_conv_algo_search": search, **options}
    compile_with = partial(_compiled, model, processor, (name, options), common, gpu)
    wish = options.get(_GRAPHS)
    if any(spec.dtype == object for spec in (*model.inputs, *model.outputs)):
        return compiled(model, processor, (name, options | {_GRAPHS: "0"}), common)
    if wish == "0" or (wish is None and not _has_known_sizes(model)):
        session = compile_with(graphs=False)
    elif wish is None:
        try:
            session = compile_with(graphs=True)
        except BackendError:  # some node is not on the provider, or has branches
            session = compile_with(graphs=False)
    else:
        session = compile_with(graphs=True)
    return session if model.open_dims else _rehearsed(session, model)


@cache
def _preload() -> None:
    """Let CUDA's libraries be found where pip, or torch, has put them; else the system's are."""
    with quiet("onnxruntime", logging.CRITICAL), suppress(*LIBRARY_ERRORS, OSError):
        ort.preload_dlls()


def _compiled(
    model: Model,
    processor: Processor,
    provider: Provider,
    common: Mapping[str, Any],
    gpu: Gpu,
    *,
    graphs: bool,
) -> OnnxRuntimeSession:
    name, options = provider
    told = {
        **common,
        "gpu": gpu,
        "device_bytes": model.weight_bytes,
        "borders": frozenset(model.borders),
    }

    def compiled_by(graphs: str, told: Mapping[str, Any]) -> OnnxRuntimeSession:
        by, kind = (name, options | {_GRAPHS: graphs}), OnnxRuntimeDeviceSession
        try:
            with gpu.running():
                return compiled(model, processor, by, told, kind=kind)
        except BackendError as error:
            if fault_of(error) is not Fault.LOST:
                raise
            gpu.lost.lose(gpu.name, first_line(error))
            raise BackendError(f"{common['what']}: {gpu.lost.gone(gpu.name)}") from error

    if not graphs:
        return compiled_by("0", told)
    graphed = {
        **told,
        "insists": options.get(_GRAPHS) == "1",
        "without_graphs": lambda: compiled_by("0", told).session,
    }
    return compiled_by("1", graphed)


def _rehearsed(session: OnnxRuntimeSession, model: Model) -> OnnxRuntimeSession:
    try:
        for _ in range(2):
            session.run(model.sample_inputs())
    except ExecutionError as error:
        session.close()
        raise BackendError(str(error)) from error
    return session


def _has_known_sizes(model: Model) -> bool:
    """Tell whether the sizes of outputs follow from those of inputs: a graph cannot change them."""
    known = {dim for spec in model.inputs for dim in spec.shape if isinstance(dim, str)}
    return all(
        spec.rank_known and all(isinstance(dim, int) or dim in known for dim in spec.shape)
        for spec in model.outputs
    )
