"""Arms: every way to answer a request of each of M models. One round of an arm answers all once.

Each model has weights and inputs of its own, and sessions where the arm has sessions. What a
process or a pool hands over is part of its round, as it is of a request.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib.util import find_spec
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np
import onnx

import coinfer
from coinfer.graph.fusing.costs import ModelledCosts
from coinfer.graph.fusing.layout import Layout
from coinfer.graph.fusing.site import Site
from coinfer.model import Model
from coinfer.threads.pinning import pin_current_thread

__all__ = ["FUSED", "LAYOUTS", "MAKERS", "UNFUSED", "Arm", "arms_of"]


class Arm(NamedTuple):
    """One way to answer a request of each model."""

    run: Callable[[], object]
    close: Callable[[], object]


_Feeds = Sequence[Mapping[str, np.ndarray[Any, Any]]]


def _session(data: bytes, threads: int) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    if threads:
        options.intra_op_num_threads = options.inter_op_num_threads = threads
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _sequence(threads: int) -> Callable[[Sequence[Model], _Feeds], Arm]:
    def make(models: Sequence[Model], feeds: _Feeds) -> Arm:
        pairs = [(_session(m.to_bytes(), threads), f) for m, f in zip(models, feeds, strict=True)]

        def run() -> None:
            for session, feed in pairs:
                session.run(None, feed)

        return Arm(run, pairs.clear)

    return make


def _workers(models: Sequence[Model], feeds: _Feeds) -> Arm:
    """One-thread sessions, dealt to as many pinned workers as there are cores."""
    cores = sorted(os.sched_getaffinity(0))
    pairs = [(_session(m.to_bytes(), 1), f) for m, f in zip(models, feeds, strict=True)]
    pools = [
        ThreadPoolExecutor(1, initializer=pin_current_thread, initargs=([core],)) for core in cores
    ]

    def share(at: int) -> None:
        for session, feed in pairs[at :: len(cores)]:
            session.run(None, feed)

    def run() -> None:
        for done in [pool.submit(share, at) for at, pool in enumerate(pools)]:
            done.result()

    def close() -> None:
        for pool in pools:
            pool.shutdown()

    return Arm(run, close)


def _threads(models: Sequence[Model], feeds: _Feeds) -> Arm:
    """Default sessions, each called by a thread of its own."""
    pairs = [(_session(m.to_bytes(), 0), f) for m, f in zip(models, feeds, strict=True)]
    pools = [ThreadPoolExecutor(1) for _ in pairs]

    def run() -> None:
        asked = [
            pool.submit(session.run, None, feed)
            for pool, (session, feed) in zip(pools, pairs, strict=True)
        ]
        for done in asked:
            done.result()

    def close() -> None:
        for pool in pools:
            pool.shutdown()

    return Arm(run, close)


def _processes(models: Sequence[Model], feeds: _Feeds) -> Arm:
    """One-thread sessions, each in a process of its own, which gets inputs and sends outputs."""
    context, ends, children = multiprocessing.get_context("spawn"), [], []
    for model in models:
        ours, theirs = context.Pipe()
        child = context.Process(target=_serve, args=(theirs, model.to_bytes()), daemon=True)
        child.start()
        theirs.close()
        ends.append(ours)
        children.append(child)

    def run() -> None:
        for end, feed in zip(ends, feeds, strict=True):
            end.send(feed)
        for end in ends:
            end.recv()

    def close() -> None:
        for end, child in zip(ends, children, strict=True):
            end.close()
            child.join()

    return Arm(run, close)


def _serve(end: Connection, data: bytes) -> None:
    session = _session(data, 1)
    while True:
        try:
            feed = end.recv()
        except EOFError:
            return
        end.send(session.run(None, feed))


def _vmapped(network: str) -> Callable[[Sequence[Model], _Feeds], Arm]:
    """`torch.func`: one module of the same layers, its weights stacked, over the axis of models."""

    def make(models: Sequence[Model], feeds: _Feeds) -> Arm:
        import torch

        torch.set_num_threads(1)
        template = _module(network)
        params, buffers = torch.func.stack_module_state([_module(network) for _ in models])
        inputs = torch.stack([torch.from_numpy(*feed.values()) for feed in feeds])

        def one(params: Any, buffers: Any, x: Any) -> Any:
            return torch.func.functional_call(template, (params, buffers), (x,))

        every = torch.func.vmap(one)

        def run() -> object:
            with torch.inference_mode():
                return every(params, buffers, inputs)

        return Arm(run, lambda: None)

    return make


def _module(network: str) -> Any:
    """Return a network of these layers; its weights are random, as all are here."""
    from torch import nn

    if network == "mlp":
        dense = [layer for _ in range(3) for layer in (nn.Linear(256, 256), nn.ReLU())]
        return nn.Sequential(*dense, nn.Linear(256, 10)).eval()
    if network == "lenet":
        layers: list[nn.Module] = []
        for before, after in ((1, 6), (6, 16)):
            layers += [nn.Conv2d(before, after, 5), nn.Tanh(), nn.AvgPool2d(2)]
        layers += [nn.Flatten(), nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh()]
        return nn.Sequential(*layers, nn.Linear(84, 10)).eval()
    convs = [
        layer
        for at in range(4)
        for layer in (
            nn.Conv2d(32 if at else 3, 32, 3, stride=1 + at % 2, padding=1),
            nn.ReLU(),
        )
    ]
    pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)]
    return nn.Sequential(*convs, *pooled).eval()


def _openvino_request(data: bytes, feed: Mapping[str, np.ndarray[Any, Any]]) -> Any:
    """Load with fixed shapes: with open ones, OpenVINO is slower."""
    import openvino as ov

    settings = {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    core = ov.Core()
    model = core.read_model(data)
    model.reshape({name: list(array.shape) for name, array in feed.items()})
    return core.compile_model(model, "CPU", settings).create_infer_request()


def _openvino(models: Sequence[Model], feeds: _Feeds) -> Arm:
    pairs = [(_openvino_request(m.to_bytes(), f), f) for m, f in zip(models, feeds, strict=True)]

    def run() -> None:
        for request, feed in pairs:
            request.infer(feed, share_inputs=True, share_outputs=True)

    return Arm(run, pairs.clear)


def _composed(models: Sequence[Model], feeds: _Feeds) -> Arm:
    whole, inputs = None, {}
    for model, feed in zip(models, feeds, strict=True):
        part = onnx.ModelProto.FromString(model.to_bytes())
        del part.metadata_props[:]
        part = onnx.compose.add_prefix(part, f"{model.name}_", rename_inputs=True)
        inputs |= {f"{model.name}_{name}": array for name, array in feed.items()}
        whole = part if whole is None else onnx.compose.merge_models(whole, part, io_map=[])
    assert whole is not None
    session = _session(whole.SerializeToString(), 1)
    return Arm(lambda: session.run(None, inputs), lambda: None)


class _Branches(ModelledCosts):
    """Everything side by side."""

    def run_s(self, _site: Site, layout: Layout) -> float:
        """Return more for what is merged."""
        return 0.0 if layout is Layout.BRANCHES else 1.0


_CHOSEN = ModelledCosts()
_GROUPED = ModelledCosts(loss_macs_s=1e30, pack_bytes_s=1e30, copy_bytes_s=1e30)
"""Everything merged that can be: only starting an operator costs."""


def _fused(costs: ModelledCosts = _CHOSEN) -> Callable[[Sequence[Model], _Feeds], Arm]:
    def make(models: Sequence[Model], feeds: _Feeds) -> Arm:
        fused = coinfer.fuse(models, costs=costs)
        session, inputs = _session(fused.model.to_bytes(), 1), fused.inputs_of(feeds)
        return Arm(lambda: session.run(None, inputs), lambda: None)

    return make


def _fused_openvino(costs: ModelledCosts = _CHOSEN) -> Callable[[Sequence[Model], _Feeds], Arm]:
    def make(models: Sequence[Model], feeds: _Feeds) -> Arm:
        fused = coinfer.fuse(models, costs=costs)
        inputs = fused.inputs_of(feeds)
        request = _openvino_request(fused.model.to_bytes(), inputs)
        return Arm(
            lambda: request.infer(inputs, share_inputs=True, share_outputs=True), lambda: None
        )

    return make


def _engine(models: Sequence[Model], feeds: _Feeds) -> Arm:
    """Coinfer as it comes: it measures for itself, batches and fuses where that pays."""
    stack = ExitStack()
    named = {model.name: model for model in models}
    engine = stack.enter_context(coinfer.Engine(named, fuse="auto", measure_s=ENGINE_S))

    def run() -> None:
        asked = [engine.submit(m.name, f) for m, f in zip(models, feeds, strict=True)]
        for done in asked:
            done.result()

    return Arm(run, stack.close)


ENGINE_S = 20.0
"""An engine may measure for so long before it starts."""

MAKERS: Mapping[str, Callable[[Sequence[Model], _Feeds], Arm]] = {
    "default": _sequence(0),
    "threads": _threads,
    "processes": _processes,
    "1 thread": _sequence(1),
    "workers": _workers,
    "openvino": _openvino,
    "compose": _composed,
    "fused": _fused(),
    "fused ov": _fused_openvino(),
    "auto": _engine,
}
"""Those of every network, by name."""

LAYOUTS: Mapping[str, Callable[[Sequence[Model], _Feeds], Arm]] = {
    "grouped": _fused(_GROUPED),
    "branches": _fused(_Branches()),
    "grouped ov": _fused_openvino(_GROUPED),
    "branches ov": _fused_openvino(_Branches()),
}
"""What could be chosen for all operators alike, in place of what the modelled costs choose."""

FUSED = ("fused", "fused ov")
UNFUSED = (*(name for name in MAKERS if name not in (*FUSED, "auto")),)
_VMAPPED = ("lenet", "cnn", "mlp")


def arms_of(network: str) -> Mapping[str, Callable[[Sequence[Model], _Feeds], Arm]]:
    """Return what can make the arms of a network, by name; that of torch where it is installed."""
    if network in _VMAPPED and find_spec("torch") is not None:
        return {**MAKERS, **LAYOUTS, "vmap": _vmapped(network)}
    return {**MAKERS, **LAYOUTS}
