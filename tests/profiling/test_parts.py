"""Parts of a model are measured as they run between others of their own kind."""

from __future__ import annotations

import dataclasses

import pytest

from backends.blocked_parts import CPU, Network, cut, needs_blocks
from coinfer.backends import get_backend
from coinfer.backends.onnxruntime import OnnxRuntimePart
from coinfer.backends.packed import Packed
from coinfer.backends.values import Value, Values
from coinfer.graph.extract import extract
from coinfer.machine.span import Span
from coinfer.model import Model
from coinfer.profiling import Effort
from coinfer.profiling.context import ProfilingContext
from coinfer.profiling.measure import Sampler
from coinfer.profiling.task import Task


def second_part() -> Model:
    net = Network(16)
    net.conv("a", "x", 32)
    net.conv("y", "a", 8)
    model = net.model("y")
    return extract(model, cut(model, [1]), Span(1, 1))


@needs_blocks
def test_a_part_is_timed_on_values_in_its_own_form(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Value] = []
    real = OnnxRuntimePart.run_part

    def run_part(session: OnnxRuntimePart, inputs: Values) -> dict[str, Value]:
        given.extend(inputs.values())
        return real(session, inputs)

    monkeypatch.setattr(OnnxRuntimePart, "run_part", run_part)
    part = second_part()
    session = get_backend("onnxruntime").load(part, CPU)
    effort = Effort(warmup_runs=1, min_runs=2, max_runs=2)
    sampler = Sampler(session, [part.sample_inputs()], effort)
    while not sampler.is_done:
        sampler.turn()
    assert len(given) == 3
    assert all(isinstance(value, Packed) for value in given)


def test_a_part_is_not_taken_for_a_model_of_the_same_structure() -> None:
    part = second_part()
    alone = dataclasses.replace(part, borders=frozenset())
    models = {"part": part, "alone": alone}
    context = ProfilingContext(
        models=models,
        samples={name: [model.sample_inputs()] for name, model in models.items()},
        backends={CPU.backend: get_backend(CPU.backend)},
        effort=Effort(),
        cache=None,
    )
    as_part, as_model = (context.parts(Task(name, CPU, 1)) for name in ("part", "alone"))
    assert as_part.pop("borders") == [0]
    assert as_part == as_model
