from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coinfer.errors import InputError, ModelError
from coinfer.model import Model, TensorSpec, load_model
from coinfer.model.content import Content
from coinfer.model.inputs import InputCheck, batch_symbol
from model.onnx_files import dense, saved

F4, I8 = np.dtype("float32"), np.dtype("int64")


def spec(name: str, *shape: int | str | None, dtype: np.dtype[Any] = F4) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape)


def model(*specs: TensorSpec, metadata: dict[str, str] | None = None) -> Model:
    """A model of which only the specs matter."""
    import onnx_ir as ir

    graph = ir.Graph([], [], nodes=[], opset_imports={"": 17})
    return Model(
        name="net",
        content=Content("net", ir.Model(graph, ir_version=8, metadata_props=metadata or {})),
        inputs=specs,
        outputs=(),
    )


BERT = model(spec("ids", "N", "S", dtype=I8), spec("mask", "N", "S", dtype=I8))
IMAGE = model(spec("image", "N", 3, 8, 8))


def test_the_batch_size_is_that_of_the_leading_symbol() -> None:
    assert IMAGE.check_inputs({"image": np.zeros((5, 3, 8, 8), np.float32)}) == 5
    assert BERT.check_inputs(BERT.sample_inputs(batch=4, dims={"S": 7})) == 4


@pytest.mark.parametrize(
    ("specs", "symbol"),
    [
        ((spec("x", "N", 3),), "N"),
        ((spec("x", 1, 3),), None),
        ((spec("x"),), None),
        ((spec("x", None, 3),), "x:0"),
        ((spec("x", "N"), spec("y", "N", 2), spec("z", 3)), "N"),
        ((spec("x", "N"), spec("y", "M")), None),
        ((spec("x", None), spec("y", None)), None),
        ((), None),
    ],
)
def test_batch_symbol(specs: tuple[TensorSpec, ...], symbol: str | None) -> None:
    assert batch_symbol(specs) == symbol


def test_a_model_without_batch_axis_has_batch_one() -> None:
    fixed = model(spec("x", 2, 3))
    assert fixed.check_inputs({"x": np.zeros((2, 3), np.float32)}) == 1


def image(*shape: int, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, r"missing 'image'; it takes image: float32\[N,3,8,8\]"),
        ({"img": image(1, 3, 8, 8)}, "missing 'image'; unknown 'img'"),
        ({"image": image(1, 3, 8, 8), "extra": image(1)}, "unknown 'extra'"),
        ({"image": None}, "no value for 'image'"),
        ({"image": [1.0]}, "got list; convert it with numpy.asarray"),
        ({"image": image(1, 3, 8, 8, dtype=float)}, r"takes float32 but got float64.*astype"),
        ({"image": image(1, 3, 8, 8, dtype=">f4")}, "takes float32 but got >f4"),
        ({"image": image(3, 8, 8)}, r"takes shape \[N,3,8,8\] but got \[3, 8, 8\]; add the batch"),
        ({"image": image(8, 8)}, "it needs 4 axes and has 2"),
        ({"image": image(1, 4, 8, 8)}, "axis 1 must be 3"),
    ],
)
def test_each_misfit_names_model_input_and_remedy(inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        IMAGE.check_inputs(inputs)
    assert "'net'" in str(caught.value)
    assert "image" in str(caught.value)


def test_equal_symbols_must_have_equal_sizes() -> None:
    inputs = {"ids": np.zeros((2, 7), np.int64), "mask": np.zeros((2, 8), np.int64)}
    with pytest.raises(InputError, match=r"'S' must have one size but is 7 in axis 1 of 'ids', 8"):
        BERT.check_inputs(inputs)


def test_open_axes_may_be_empty_the_batch_too() -> None:
    decoder = model(spec("ids", "N", "S", dtype=I8), spec("past", "N", 2, "P"))
    first = decoder.sample_inputs(batch=3, dims={"S": 5, "P": 0})
    assert first["past"].shape == (3, 2, 0)
    assert decoder.check_inputs(first) == 3
    assert decoder.check_inputs({name: array[:0] for name, array in first.items()}) == 0
    with pytest.raises(InputError, match="'N' is 0; it must be at least 1"):
        decoder.sample_inputs(batch=0, dims={"S": 5, "P": 0})


def test_nameless_axes_need_not_agree() -> None:
    free = model(spec("x", None), spec("y", None))
    assert free.check_inputs({"x": np.zeros(2, np.float32), "y": np.zeros(3, np.float32)}) == 1


def test_strings_are_accepted_as_text_or_objects() -> None:
    text = model(spec("s", "N", dtype=np.dtype(object)))
    assert text.check_inputs({"s": np.array(["a", "bc"])}) == 2
    assert text.check_inputs({"s": np.array(["a"], dtype=object)}) == 1
    with pytest.raises(InputError, match="takes str but got float32"):
        text.check_inputs({"s": np.zeros(1, np.float32)})


SHAPES = st.lists(st.one_of(st.integers(1, 4), st.sampled_from(["N", "M"]), st.none()), max_size=4)


@given(
    shapes=st.lists(SHAPES, min_size=1, max_size=3),
    batch=st.integers(1, 3),
    seed=st.integers(0, 9),
)
def test_sample_inputs_pass_the_check(
    shapes: list[list[int | str | None]], batch: int, seed: int
) -> None:
    specs = tuple(spec(f"x{i}", *shape) for i, shape in enumerate(shapes))
    made = model(*specs)
    open_axes = {
        dim if isinstance(dim, str) else f"{one.name}:{axis}"
        for one in specs
        for axis, dim in enumerate(one.shape)
        if not isinstance(dim, int)
    }
    dims = {symbol: 2 for symbol in open_axes if symbol != made.batch_symbol}
    inputs = made.sample_inputs(batch=batch, seed=seed, dims=dims)
    assert made.check_inputs(inputs) == (1 if made.batch_symbol is None else batch)


@given(
    given_shape=st.lists(st.integers(0, 4), max_size=4).map(tuple),
    wanted=SHAPES.map(tuple),
)
def test_the_fast_check_agrees_with_the_spec(
    given_shape: tuple[int, ...], wanted: tuple[int | str | None, ...]
) -> None:
    one = spec("x", *wanted)
    array = np.zeros(given_shape, np.float32)
    consistent = all(
        given_shape[i] == given_shape[j]
        for i, a in enumerate(wanted)
        for j, b in enumerate(wanted)
        if isinstance(a, str) and a == b and max(i, j) < len(given_shape)
    )
    try:
        one.check(array)
        fits = consistent
    except InputError:
        fits = False
    try:
        InputCheck("net", (one,))({"x": array})
        accepted = True
    except InputError:
        accepted = False
    assert accepted == fits


def test_sample_inputs_repeat_with_the_seed() -> None:
    first, again, other = (IMAGE.sample_inputs(seed=seed)["image"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_sample_integers_are_safe_for_any_vocabulary_unless_the_model_knows_better() -> None:
    ids = BERT.sample_inputs(batch=8, dims={"S": 64})["ids"]
    assert set(np.unique(ids)) == {0, 1}
    knows = model(spec("ids", "N", dtype=I8), metadata={"coinfer.input.ids.high": "100"})
    wide = knows.sample_inputs(batch=1000)["ids"]
    assert wide.min() == 0
    assert 90 < wide.max() < 100


@pytest.mark.parametrize("dtype", ["bool", "uint8", "float16", "float64", "int4", "bfloat16"])
def test_samples_have_the_dtype_of_the_spec(dtype: str) -> None:
    import onnx_ir as ir

    names = {"int4": ir.DataType.INT4, "bfloat16": ir.DataType.BFLOAT16}
    wanted = np.dtype(names[dtype].numpy()) if dtype in names else np.dtype(dtype)
    made = model(spec("x", "N", dtype=wanted)).sample_inputs(batch=16)
    assert made["x"].dtype == wanted


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ({}, r"leaves the dimension 'S' open.*dims=\{'S': 64\}"),
        ({"S": 4, "T": 1}, "no open dimension 'T'; it has N, S"),
        ({"S": -1}, "'S' is -1; it must be at least 0"),
    ],
)
def test_open_dimensions_must_be_given(dims: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BERT.sample_inputs(dims=dims)


def test_there_are_no_random_strings() -> None:
    with pytest.raises(ModelError, match=r"'s'.*\.npz"):
        model(spec("s", 1, dtype=np.dtype(object))).sample_inputs()


def test_a_model_cannot_be_changed(tmp_path: Path) -> None:
    loaded = load_model(saved(dense(), tmp_path / "m.onnx"))
    with pytest.raises(AttributeError):
        loaded.name = "other"  # type: ignore[misc]
