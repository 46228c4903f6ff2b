"""Networks of convolutions as ONNX text, cut into parts that onnxruntime runs in blocks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest

from coinfer.backends import get_backend
from coinfer.backends.base import Session
from coinfer.backends.onnxruntime.packing import block_size
from coinfer.backends.values import Value, run_part
from coinfer.graph.extract import extract
from coinfer.graph.operators import Operators
from coinfer.graph.partition import Partition, partition_at
from coinfer.machine.processor import Processor
from coinfer.machine.span import Span
from coinfer.model import Model
from coinfer.testing.models import model_from_text

Arrays = Mapping[str, np.ndarray[Any, Any]]

CPU = Processor(name="cpu0", backend="onnxruntime", units=frozenset({"core0"}))

needs_blocks = pytest.mark.skipif(
    block_size() not in (8, 16), reason="onnxruntime has no blocks of channels on this processor"
)


class Network:
    """Writes a network operator by operator; each weight is drawn once."""

    def __init__(self, channels: int, *, batch: str = "N", size: int = 9) -> None:
        self._input = f"float[{batch},{channels},{size},{size}] x"
        self._channels = {"x": channels}
        self._rng = np.random.default_rng(5)
        self._weights: list[str] = []
        self._lines: list[str] = []

    def conv(
        self, name: str, source: str, channels: int, *, kernel: int = 1, group: int = 1
    ) -> None:
        shape = (channels, self._channels[source] // group, kernel, kernel)
        values = self._rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        literal = ", ".join(f"{value:.6g}" for value in values.ravel())
        dims = ",".join(map(str, shape))
        self._weights.append(f"float[{dims}] w_{name} = {{{literal}}}")
        pad = kernel // 2
        self._lines.append(
            f"{name} = Conv<group = {group}, kernel_shape = [{kernel}, {kernel}], "
            f"pads = [{pad}, {pad}, {pad}, {pad}]>({source}, w_{name})"
        )
        self._channels[name] = channels

    def node(self, name: str, text: str, channels: int) -> None:
        self._lines.append(f"{name} = {text}")
        self._channels[name] = channels

    def model(self, *outputs: str) -> Model:
        given = ", ".join(f"float[N,{self._channels[o]},H_{o},W_{o}] {o}" for o in outputs)
        text = f"g ({self._input}) => ({given}) <{', '.join(self._weights)}> {{"
        return model_from_text(text + "\n".join(self._lines) + "}", name="network")


class Part(NamedTuple):
    """A part of a model: what it reads, and its session."""

    reads: tuple[str, ...]
    session: Session


def cut(model: Model, positions: Iterable[int]) -> Partition:
    everything = frozenset(range(len(Operators.of(model.graph))))
    return partition_at(model, positions, {"cpu": everything})


def load_parts(model: Model, partition: Partition) -> list[Part]:
    spans = [Span(at, at) for at in range(len(partition.units))]
    load = get_backend("onnxruntime").load
    return [Part(partition.reads(s), load(extract(model, partition, s), CPU)) for s in spans]


def handed_on(parts: Iterable[Part], inputs: Arrays) -> dict[str, Value]:
    """Run parts one after the other; return all values that there were."""
    values: dict[str, Value] = dict(inputs)
    for reads, session in parts:
        values |= run_part(session, {name: values[name] for name in reads})
    return values


def whole(model: Model, inputs: Arrays) -> Arrays:
    session = get_backend("onnxruntime").load(model, CPU)
    outputs = session.run(inputs)
    session.close()
    return outputs


def relative_error(value: Any, reference: Any) -> float:
    size = np.linalg.norm(reference)
    assert size > 0, "a network whose outputs are zero proves nothing"
    return float(np.linalg.norm(value - reference) / size)
