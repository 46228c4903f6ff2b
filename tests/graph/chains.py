"""Runs models in pieces with onnxruntime, and strategies for graphs to be cut."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from hypothesis import strategies as st

from coinfer.backends import get_backend
from coinfer.graph.extract import extract
from coinfer.graph.operators import Operators
from coinfer.graph.partition import Partition
from coinfer.machine.processor import Processor
from coinfer.machine.span import Span
from coinfer.model import Model
from coinfer.testing.models import model_from_text

Arrays = Mapping[str, np.ndarray[Any, Any]]

CPU = Processor(name="cpu0", backend="onnxruntime", units=frozenset({"core0"}))

TOLERANCE = 1e-5
"""Relative, in fp32: a library fuses other operators in a part than in the whole."""


def run(model: Model, inputs: Arrays) -> Arrays:
    session = get_backend("onnxruntime").load(model, CPU)
    outputs = session.run(inputs)
    session.close()
    return outputs


def run_chain(model: Model, partition: Partition, chain: Iterable[Span], inputs: Arrays) -> Arrays:
    """Run spans one after the other, each with nothing but what the partition says it reads."""
    held = dict(inputs)
    for span in chain:
        part = extract(model, partition, span)
        assert tuple(spec.name for spec in part.inputs) == partition.reads(span)
        assert tuple(spec.name for spec in part.outputs) == partition.writes(span)
        given = {name: held[name] for name in partition.reads(span)}
        part.check_inputs(given)
        held |= run(part, given)
        kept = partition.keep_after(span.last + 1)
        held = {name: array for name, array in held.items() if name in kept}
    assert set(held) == {spec.name for spec in model.outputs}
    return held


def assert_same(got: Arrays, wanted: Arrays) -> None:
    assert got.keys() == wanted.keys()
    for name, array in wanted.items():
        assert got[name].shape == array.shape, name
        assert got[name].dtype == array.dtype, name
        if array.dtype.kind == "f":
            off = float(np.linalg.norm((got[name] - array).astype(np.float64).ravel()))
            assert off <= TOLERANCE * float(np.linalg.norm(array.ravel())), name
        else:
            np.testing.assert_array_equal(got[name], array)


def assert_chain_equals_whole(
    model: Model, partition: Partition, inputs: Arrays | None = None
) -> None:
    """Unit by unit, and by the longest spans there are."""
    inputs = model.sample_inputs(batch=2) if inputs is None else inputs
    wanted = run(model, inputs)
    for chain in (unit_chain(partition), longest_chain(partition)):
        assert_same(run_chain(model, partition, chain, inputs), wanted)


def unit_chain(partition: Partition) -> list[Span]:
    return [Span(at, at) for at in range(len(partition.units))]


def longest_chain(partition: Partition) -> list[Span]:
    chain: list[Span] = []
    first = 0
    while first < len(partition.units):
        chain.append(max(span for span in partition.spans if span.first == first))
        first = chain[-1].last + 1
    return chain


def assert_well_formed(partition: Partition) -> None:
    """Units are disjoint, cover everything and can run in their order; each span can run."""
    operators = partition.operators
    members = [index for unit in partition.units for index in unit.operators]
    assert sorted(members) == list(range(len(operators)))
    at = {index: unit for unit, each in enumerate(partition.units) for index in each.operators}
    for operator in operators:
        assert all(at[producer] <= at[operator.index] for producer in operator.producers)
    for group in operators.groups:
        assert len({at[index] for index in group}) == 1, "what cannot be parted was parted"
    for unit, producers in enumerate(partition.dependencies):
        assert all(producer < unit for producer in producers)
    for span, processors in partition.spans.items():
        units = partition.units[span.first : span.last + 1]
        assert processors
        assert all(processors <= unit.processors for unit in units)


def gaps(operators: Operators, *op_types: str) -> frozenset[int]:
    """Everything but operators of these types."""
    return frozenset(o.index for o in operators if o.op_type not in op_types)


def everything(operators: Operators) -> frozenset[int]:
    return frozenset(range(len(operators)))


_UNARY = ("Neg", "Tanh", "Abs", "Identity", "Sigmoid")
_BINARY = ("Add", "Sub", "Max", "Min")


@st.composite
def random_models(draw: st.DrawFn) -> Model:
    """Graphs of up to 14 operators with all that makes cutting hard."""
    lines: list[str] = []
    values = ["a", "b"]
    weights = ["w", "v"]
    for at in range(draw(st.integers(1, 14))):
        kind = draw(st.sampled_from(("unary", "binary", "weight", "split", "clip", "if", "fold")))
        x, y = draw(st.sampled_from(values)), draw(st.sampled_from(values))
        w = draw(st.sampled_from(weights))
        new = f"t{at}"
        match kind:
            case "unary":
                lines.append(f"{new} = {draw(st.sampled_from(_UNARY))}({x})")
            case "binary":
                lines.append(f"{new} = {draw(st.sampled_from(_BINARY))}({x}, {y})")
            case "weight":
                lines.append(f"{new} = Mul({x}, {w})")
            case "split":
                lines.append(f"{new}, {new}_2 = Split<axis = 1, num_outputs = 2>({new}_wide)")
                lines[-1:-1] = [f"{new}_wide = Concat<axis = 1>({x}, {y})"]
                values.append(f"{new}_2")
            case "clip":
                lines.append(f"{new} = Clip({x}, , one)")
            case "fold":
                lines.append(f"{new}_w = Neg({w})")
                lines.append(f"{new} = Add({x}, {new}_w)")
                weights.append(f"{new}_w")
            case "if":
                lines.append(f"{new}_s = ReduceSum<keepdims = 0>({x})")
                lines.append(f"{new}_c = Greater({new}_s, zero)")
                lines.append(
                    f"{new} = If({new}_c) <then_branch = yes () => (float[N,3] {new}_y) "
                    f"{{ {new}_y = Mul({y}, {w}) }}, else_branch = no () => (float[N,3] {new}_n) "
                    f"{{ {new}_n = Sub({x}, {y}) }}>"
                )
        values.append(new)
    made = [value for value in values if value not in ("a", "b")]
    outputs = draw(st.lists(st.sampled_from(made), min_size=1, max_size=3, unique=True))
    declared = ", ".join(f"float[N,3] {name}" for name in outputs)
    text = "\n".join(lines)
    return model_from_text(
        f"""random (float[N,3] a, float[N,3] b) => ({declared})
        <float[3] w = {{0.5, -1.5, 2}}, float[3] v = {{1, 0.25, -1}}, float one = {{1}},
         float zero = {{0}}> {{ {text} }}""",
        name="random",
    )


@st.composite
def random_support(
    draw: st.DrawFn, operators: Operators, names: Sequence[str] = ("npu", "dsp")
) -> dict[str, frozenset[int]]:
    """One processor runs everything, the others what chance gives them."""
    indices = range(len(operators))
    limited = {
        name: frozenset(draw(st.sets(st.sampled_from(indices))) if indices else ())
        for name in names
    }
    return {"cpu": everything(operators), **limited}


@cache
def light_models() -> tuple[str, ...]:
    """Paths of the models that ship inside the onnx package."""
    import onnx.backend.test

    folder = next(iter(onnx.backend.test.__path__))
    from pathlib import Path

    return tuple(str(path) for path in sorted(Path(folder).glob("data/light/*.onnx")))
