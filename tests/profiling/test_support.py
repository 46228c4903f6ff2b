"""Support: declared, asked, tried; and that what is found out holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from coinfer.backends import get_backend
from coinfer.backends.base import Backend
from coinfer.errors import BackendError, ConfigurationError
from coinfer.graph.extract import extract
from coinfer.graph.operators import Operators
from coinfer.graph.partition import partition_at
from coinfer.machine.processor import Processor
from coinfer.machine.span import Span
from coinfer.model import Model
from coinfer.planner.model_source import resolve_model
from coinfer.profiling.support import SupportSource, find_support
from coinfer.testing.models import model_from_text, tiny_linear

CHAIN = """g (float[N,3] x) => (float[N,3] y)
{ a = Relu(x) b = Tanh(a) c = Relu(b) d = Tanh(c) y = Neg(d) }"""

UNKNOWN = """<ir_version: 10, opset_import: ["" : 20, "example.unknown" : 1]>
g (float[N,3] x) => (float[N,3] y) <float[N,3] b>
{ a = Relu(x) b = example.unknown.Nothing(a) c = Gelu(b) y = Neg(c) }"""


def processor(name: str = "p", backend: str = "picky", **fields: Any) -> Processor:
    return Processor(name=name, backend=backend, units=frozenset({name}), **fields)


@dataclass
class PickyBackend:
    """Cannot compile some operator types; says so before, or only when it is tried."""

    refuses: frozenset[str]
    tells: bool = False
    broken: bool = False
    loads: list[int] = field(default_factory=list)

    def supported(self, model: Model, processor: Processor) -> frozenset[str] | None:
        if self.broken:
            raise BackendError(f"processor {processor.name!r}: no such device")
        if not self.tells:
            return None
        nodes = model.graph.graph
        return frozenset(n.outputs[0].name for n in nodes if n.op_type not in self.refuses)

    def load(self, model: Model, processor: Processor) -> PickyBackend:
        types = [node.op_type for node in model.graph.graph]
        self.loads.append(len(types))
        if self.refuses.intersection(types):
            raise BackendError("refused")
        return self

    def close(self) -> None: ...


def found(
    backend: PickyBackend, *processors: Processor, text: str = CHAIN
) -> tuple[Mapping[str, frozenset[int]], Mapping[str, SupportSource]]:
    model = model_from_text(text, name="g")
    support = find_support(model, processors, {"picky": backend})  # type: ignore[dict-item]
    return support.operators, support.sources


def test_a_backend_that_can_tell_is_asked_and_nothing_is_compiled() -> None:
    backend = PickyBackend(frozenset({"Tanh"}), tells=True)
    operators, sources = found(backend, processor())
    assert operators == {"p": {0, 2, 4}}
    assert sources == {"p": SupportSource.ASKED}
    assert backend.loads == []


def test_where_a_backend_cannot_tell_parts_are_compiled_down_to_single_operators() -> None:
    backend = PickyBackend(frozenset({"Neg"}))
    operators, sources = found(backend, processor())
    assert operators == {"p": {0, 1, 2, 3}}
    assert sources == {"p": SupportSource.TRIED}
    assert sorted(backend.loads) == [1, 1, 2, 3, 5]


def test_a_model_that_compiles_as_a_whole_is_tried_once() -> None:
    backend = PickyBackend(frozenset())
    operators, _ = found(backend, processor())
    assert operators == {"p": {0, 1, 2, 3, 4}}
    assert backend.loads == [5]


def test_processors_of_one_kind_are_asked_once() -> None:
    backend = PickyBackend(frozenset())
    found(backend, processor("a"), processor("b"), processor("c", device="OTHER"))
    assert backend.loads == [5, 5]


def test_a_declaration_limits_what_the_backend_could_run() -> None:
    backend = PickyBackend(frozenset({"Neg"}), tells=True)
    operators, _ = found(
        backend,
        processor("gaps", unsupported_ops=frozenset({"Tanh"})),
        processor("only", supported_ops=frozenset({"Relu", "Neg"})),
    )
    assert operators == {"gaps": {0, 2}, "only": {0, 2}}


def test_a_processor_without_a_backend_is_taken_at_its_word() -> None:
    operators, sources = found(
        PickyBackend(frozenset()),
        processor("npu", "imagined", supported_ops=frozenset({"Relu"})),
        processor("cpu", "imagined"),
    )
    assert operators == {"npu": {0, 2}, "cpu": {0, 1, 2, 3, 4}}
    assert set(sources.values()) == {SupportSource.DECLARED}


def test_a_processor_that_the_backend_does_not_have_runs_nothing_and_says_why() -> None:
    model = model_from_text(CHAIN, name="g")
    backends: dict[str, Any] = {"picky": PickyBackend(frozenset(), broken=True)}
    support = find_support(model, [processor()], backends)
    assert support.operators == {"p": frozenset()}
    assert support.problems == {"p": "processor 'p': no such device"}


def test_a_branch_is_supported_only_with_all_that_is_in_it() -> None:
    text = """g (float[N] x, bool c) => (float[N] y)
    { a = Relu(x) y = If(c) <then_branch = t () => (float[N] p) { p = Tanh(a) },
                             else_branch = e () => (float[N] q) { q = Neg(a) }> }"""
    backend = PickyBackend(frozenset(), tells=True)
    operators, _ = found(
        backend,
        processor("all", supported_ops=frozenset({"Relu", "If", "Tanh", "Neg"})),
        processor("gap", supported_ops=frozenset({"Relu", "If", "Tanh"})),
        text=text,
    )
    assert operators == {"all": {0, 1}, "gap": {0}}


def test_operators_inside_of_the_models_own_functions_count() -> None:
    text = """<ir_version: 10, opset_import: ["" : 20, "own" : 1]>
    g (float[N,3] x) => (float[N,3] y) { a = own.twice(x) y = Neg(a) }
    <opset_import: ["" : 20], domain: "own"> twice (v) => (r) { h = Tanh(v) r = Add(h, v) }"""
    for tells in (True, False):
        backend = PickyBackend(frozenset({"Add"}), tells=tells)
        assert found(backend, processor(), text=text)[0] == {"p": {0, 2}}


def test_two_declarations_on_one_processor_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="'p' declares supported_ops and unsupported_ops"):
        processor(supported_ops=frozenset({"Relu"}), unsupported_ops=frozenset({"Add"}))


def real(*names: str) -> dict[str, Backend]:
    return {name: get_backend(name) for name in names}


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_what_a_library_lacks_is_found_and_what_comes_after_it_is_not_lost(backend: str) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino")
    model = model_from_text(UNKNOWN, name="g")
    support = find_support(model, [processor("p", backend)], real(backend))
    operators = Operators.of(model.graph)
    types = {operators[index].op_type for index in support.operators["p"]}
    assert types == {"Relu", "Gelu", "Neg"}


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("name", ["tiny_branchy", "tiny_encoder", "mobilenet_v2"])
def test_what_is_supported_compiles_in_parts(backend: str, name: str) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino")
    model = resolve_model(f"zoo:{name}")
    one = processor("p", backend)
    operators = Operators.of(model.graph)
    support = find_support(model, [one], real(backend), operators=operators).operators
    assert support["p"] == frozenset(range(len(operators)))
    middle = len(operators.groups) // 2
    partition = partition_at(model, [middle], support, operators=operators)
    for at in (0, 1):
        part = extract(model, partition, Span(at, at))
        get_backend(backend).load(part, one).close()


def test_the_null_backend_supports_everything() -> None:
    model = tiny_linear().model
    support = find_support(model, [processor("n", "null")], real("null"))
    assert support.operators == {"n": {0, 1}}
