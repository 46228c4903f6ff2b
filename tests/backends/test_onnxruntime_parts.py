"""Parts of a model hand values on in blocks of channels, and compute what the whole does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from backends.blocked_parts import (
    CPU,
    Network,
    cut,
    handed_on,
    load_parts,
    needs_blocks,
    relative_error,
    whole,
)
from coinfer.backends import get_backend
from coinfer.backends.base import note_of
from coinfer.backends.onnxruntime import OnnxRuntimePart, OnnxRuntimeSession, blocks, part
from coinfer.backends.onnxruntime.creation import Style
from coinfer.backends.onnxruntime.packing import Packed, channel_blocks
from coinfer.backends.values import joined, parted, run_part, to_host
from coinfer.errors import ExecutionError
from coinfer.graph.extract import extract
from coinfer.machine.span import Span
from coinfer.model import Model

pytestmark = needs_blocks

TOLERANCE = 1e-5
"""Relative, in fp32: a library fuses other operators in a part than in the whole."""


def residual(channels: int = 32) -> Model:
    """A skip connection over two cuts; operators 0 to 5."""
    net = Network(3)
    net.conv("a", "x", channels, kernel=3)
    net.node("r", "Relu(a)", channels)
    net.conv("b", "r", channels, kernel=3)
    net.conv("c", "b", channels)
    net.node("d", "Add(c, r)", channels)
    net.conv("y", "d", 8)
    return net.model("y")


def read_twice() -> Model:
    """A value at a border that two operators read, one of them after two cuts."""
    net = Network(16)
    net.conv("a", "x", 24)
    net.conv("b", "a", 24, kernel=3)
    net.node("p", "MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(a)", 24)
    net.node("s", "Concat<axis = 1>(b, p)", 48)
    net.conv("y", "s", 4)
    return net.model("y")


def grouped() -> Model:
    net = Network(32)
    net.conv("a", "x", 32, kernel=3, group=2)
    net.conv("b", "a", 32, kernel=3, group=32)
    net.conv("c", "b", 64, kernel=3, group=4)
    net.conv("y", "c", 64, kernel=3, group=64)
    return net.model("y")


def pooled() -> Model:
    net = Network(3)
    net.conv("a", "x", 16, kernel=3)
    net.node("p", "AveragePool<kernel_shape = [2, 2], strides = [2, 2]>(a)", 16)
    net.node("m", "GlobalAveragePool(p)", 16)
    net.conv("y", "m", 8)
    return net.model("y")


def scaled() -> Model:
    """What squeeze-and-excite does: channels are multiplied by what all of them together say."""
    net = Network(16)
    net.conv("a", "x", 32, kernel=3)
    net.node("m", "GlobalAveragePool(a)", 32)
    net.conv("q", "m", 32)
    net.node("g", "Sigmoid(q)", 32)
    net.node("s", "Mul(a, g)", 32)
    net.conv("y", "s", 8)
    return net.model("y")


def clipped() -> Model:
    net = Network(8)
    net.conv("a", "x", 16)
    net.node("l", "LeakyRelu(a)", 16)
    net.conv("b", "l", 16)
    net.node("h", "HardSwish(b)", 16)
    net.node("t", "Transpose<perm = [0, 2, 3, 1]>(h)", 9)
    net.node("u", "Transpose<perm = [0, 3, 1, 2]>(t)", 16)
    net.conv("y", "u", 8)
    return net.model("y")


NETWORKS: dict[str, Callable[[], Model]] = {
    "residual": residual,
    "residual of channels that fill no block": lambda: residual(20),
    "residual of fewer channels than a block has": lambda: residual(4),
    "residual of channels that cannot be in blocks": lambda: residual(18),
    "read twice": read_twice,
    "grouped": grouped,
    "pooled": pooled,
    "scaled": scaled,
    "clipped": clipped,
}


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_cut_everywhere_it_computes_what_the_whole_does(build: Callable[[], Model]) -> None:
    model = build()
    places = range(1, len(cut(model, []).operators))
    for positions in [[place] for place in places] + [[1, 3], [1, 2, 3], [*places]]:
        parts = load_parts(model, cut(model, positions))
        for batch in (1, 3):
            inputs = model.sample_inputs(batch=batch, seed=batch)
            values = handed_on(parts, inputs)
            for name, expected in whole(model, inputs).items():
                got = values[name]
                assert isinstance(got, np.ndarray)
                assert got.shape == expected.shape
                assert relative_error(got, expected) <= TOLERANCE


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_arrays_at_the_borders_give_exactly_the_same(build: Callable[[], Model]) -> None:
    model = build()
    inputs = model.sample_inputs(batch=2)
    parts = load_parts(model, cut(model, [2, 3]))
    values = handed_on(parts, inputs)
    arrays = dict(inputs)
    for reads, session in parts:
        arrays |= session.run({name: arrays[name] for name in reads})
    for name, value in to_host(values).items():
        np.testing.assert_array_equal(arrays[name], value)


def test_a_skip_over_two_cuts_stays_in_blocks_all_the_way() -> None:
    model = residual()
    parts = load_parts(model, cut(model, [2, 4]))
    values = handed_on(parts, model.sample_inputs())
    assert {n: v.packing.channels for n, v in values.items() if isinstance(v, Packed)} == {
        "r": 32,
        "c": 32,
    }
    first = values["r"]
    assert isinstance(first, Packed)
    assert parts[1].session.owned({"r": first})["r"].array is first.array


def test_channels_that_fill_no_block_are_filled_up() -> None:
    model = residual(20)
    values = handed_on(load_parts(model, cut(model, [2])), model.sample_inputs())
    packed = values["r"]
    assert isinstance(packed, Packed)
    assert packed.array.shape == (1, 32, 9, 9)
    assert packed.to_host().shape == (1, 20, 9, 9)


def test_what_cannot_be_in_blocks_crosses_as_an_array() -> None:
    model = residual(18)
    values = handed_on(load_parts(model, cut(model, [2])), model.sample_inputs())
    assert isinstance(values["r"], np.ndarray)


def test_a_part_without_convolutions_takes_and_gives_arrays() -> None:
    model = residual()
    partition = cut(model, [4, 5])
    parts = load_parts(model, partition)
    assert [type(session) for _, session in parts] == [
        OnnxRuntimePart,
        OnnxRuntimeSession,
        OnnxRuntimePart,
    ]
    values = handed_on(parts, model.sample_inputs())
    assert isinstance(values["d"], np.ndarray)


def test_an_output_of_the_model_is_an_array_also_where_other_parts_read_it() -> None:
    net = Network(16)
    net.conv("early", "x", 32)
    net.conv("y", "early", 32)
    model = net.model("early", "y")
    partition = cut(model, [1])
    assert extract(model, partition, Span(0, 0)).borders == frozenset()
    values = handed_on(load_parts(model, partition), model.sample_inputs())
    assert isinstance(values["early"], np.ndarray)


def test_a_whole_model_is_no_part() -> None:
    model = residual()
    session = get_backend("onnxruntime").load(model, CPU)
    assert type(session) is OnnxRuntimeSession


def test_a_part_counts_its_operators_as_if_it_were_alone() -> None:
    model = residual()
    load = get_backend("onnxruntime").load
    for at in range(2):
        piece = extract(model, cut(model, [3]), Span(at, at))
        alone = dataclasses.replace(piece, borders=frozenset())
        assert load(piece, CPU).placement() == load(alone, CPU).placement()


def test_a_wide_session_hands_values_on_to_a_narrow_one() -> None:
    model = residual()
    partition = cut(model, [3])
    wide = dataclasses.replace(CPU, name="wide", threads=2)
    inputs = model.sample_inputs(batch=2)
    load = get_backend("onnxruntime").load
    first = load(extract(model, partition, Span(0, 0)), wide)
    second = load(extract(model, partition, Span(1, 1)), CPU)
    border = run_part(first, inputs)
    assert all(isinstance(value, Packed) for value in border.values())
    assert relative_error(run_part(second, border)["y"], whole(model, inputs)["y"]) <= TOLERANCE
    first.close()


def test_another_library_gets_arrays() -> None:
    model = residual()
    partition = cut(model, [3])
    inputs = model.sample_inputs(batch=2)
    other = dataclasses.replace(CPU, name="other", backend="openvino")
    first = get_backend("onnxruntime").load(extract(model, partition, Span(0, 0)), CPU)
    second = get_backend("openvino").load(extract(model, partition, Span(1, 1)), other)
    outputs = run_part(second, run_part(first, inputs))
    assert relative_error(outputs["y"], whole(model, inputs)["y"]) <= TOLERANCE


def assert_compiled_like_any_model(model: Model, *, why: str) -> None:
    parts = load_parts(model, cut(model, [2, 4]))
    assert {type(session) for _, session in parts} == {OnnxRuntimeSession}
    [note] = {note_of(session) for _, session in parts} - {""}
    assert why in note
    inputs = model.sample_inputs()
    values = handed_on(parts, inputs)
    assert relative_error(values["y"], whole(model, inputs)["y"]) <= TOLERANCE


def test_a_library_that_does_not_save_what_it_makes_of_a_graph_compiles_parts_like_any_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("no such option")

    monkeypatch.setattr(part, "_rewritten", refuse)
    assert_compiled_like_any_model(residual(), why="write one down as it runs it: no such option")


def test_a_library_that_makes_something_unknown_of_a_graph_compiles_parts_like_any_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rewritten = part._rewritten

    def otherwise(*given: object) -> object:
        model, operators = rewritten(*given)
        for node in model.graph:
            if node.op_type in ("Conv", "ReorderInput", "ReorderOutput"):
                node.domain = "com.example.tiles"
        return model, operators

    monkeypatch.setattr(part, "_rewritten", otherwise)
    assert_compiled_like_any_model(residual(), why="rewrites one otherwise than is known of it")


def test_a_library_that_refuses_borders_in_blocks_compiles_parts_like_any_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    create = part.create

    def refuse(source: bytes, *rest: Any) -> Any:
        if rest[-1] == Style(optimised=False, shared=True):
            return create(b"no graph", *rest)  # raises what the library raises
        return create(source, *rest)

    monkeypatch.setattr(part, "create", refuse)
    assert_compiled_like_any_model(residual(), why="refuses one with borders in blocks: [ONNX")


def test_a_bug_of_ours_is_not_taken_for_a_refusal_of_the_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wrong(*_: object, **__: object) -> None:
        raise KeyError("value")

    monkeypatch.setattr(blocks, "without_probes", wrong)
    model = residual()
    with pytest.raises(KeyError, match="value"):
        load_parts(model, cut(model, [2, 4]))


def test_where_there_are_no_blocks_nothing_is_lost_and_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(part, "block_size", lambda: 0)
    model = residual()
    parts = load_parts(model, cut(model, [2, 4]))
    assert {type(session) for _, session in parts} == {OnnxRuntimeSession}
    assert {note_of(session) for _, session in parts} == {""}


def test_what_is_too_large_to_be_saved_is_compiled_like_any_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(part, "_MOST_WEIGHT_BYTES", 1)
    assert_compiled_like_any_model(residual(), why="more than 1 B of weights")


def test_a_closed_part_refuses_to_run() -> None:
    model = residual()
    [first, _] = load_parts(model, cut(model, [2]))
    first.session.close()
    first.session.close()
    with pytest.raises(ExecutionError, match=r"'network\[0-0\]' on processor 'cpu0'"):
        run_part(first.session, model.sample_inputs())


def test_a_failing_run_names_part_and_processor() -> None:
    model = residual()
    [_, second] = load_parts(model, cut(model, [2]))
    wrong = channel_blocks(32).pack(np.zeros((1, 32, 7, 9), np.float32))
    with pytest.raises(ExecutionError, match=r"'network\[1-1\]' on processor 'cpu0'"):
        run_part(second.session, {"r": wrong})


@pytest.mark.parametrize("channels", [4, 16, 20, 48])
def test_blocks_and_back_is_the_same(channels: int) -> None:
    array = np.random.default_rng(1).standard_normal((2, channels, 3, 5)).astype(np.float32)
    np.testing.assert_array_equal(channel_blocks(channels).pack(array).to_host(), array)
    assert channel_blocks(channels) is channel_blocks(channels)


def test_packed_batches_are_joined_and_parted_as_they_are() -> None:
    arrays = [np.full((n, 20, 2, 2), n, np.float32) for n in (1, 3, 2)]
    packed = [channel_blocks(20).pack(array) for array in arrays]
    together = joined(packed)
    assert isinstance(together, Packed)
    np.testing.assert_array_equal(together.to_host(), np.concatenate(arrays))
    for value, array in zip(parted(together, [1, 4]), arrays, strict=True):
        assert isinstance(value, Packed)
        np.testing.assert_array_equal(value.to_host(), array)


def test_batches_in_different_forms_are_joined_as_arrays() -> None:
    arrays = [np.full((n, 16, 2, 2), n, np.float32) for n in (1, 2)]
    for mixed in (
        [channel_blocks(16).pack(arrays[0]), arrays[1]],
        [arrays[0], channel_blocks(16).pack(arrays[1])],
    ):
        together = joined(mixed)
        assert isinstance(together, np.ndarray)
        np.testing.assert_array_equal(together, np.concatenate(arrays))


def test_probes_leave_the_part_as_it_was() -> None:
    model = residual()
    piece = extract(model, cut(model, [2, 4]), Span(1, 1))
    before = ir.to_proto(piece.graph).SerializeToString()
    get_backend("onnxruntime").load(piece, CPU)
    assert ir.to_proto(piece.graph).SerializeToString() == before
