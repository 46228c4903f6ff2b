"""Factors that heed what layers see: against plain ones, and against a loop written out."""

from __future__ import annotations

from itertools import product

import numpy as np
import onnx_ir as ir
import pytest

from coinfer.errors import InputError
from coinfer.graph.compressing.factors import plain_factors
from coinfer.graph.compressing.layer import Kind, Layer, Ranks
from coinfer.graph.compressing.moments import Moments, Window
from coinfer.graph.compressing.whitened import Whitener

pytest.importorskip("tensorly", reason="decomposing needs tensorly")


def layer_of(weight: np.ndarray, kind: Kind) -> Layer:
    groups, outputs, inputs, *kernel = weight.shape
    sizes = {"groups": groups, "outputs": outputs, "inputs": inputs, "kernel": tuple(kernel)}
    return Layer(key="y", name="y", kind=kind, in_places=1, out_places=1, **sizes)  # type: ignore[arg-type]


def whitener(weight: np.ndarray, rows: np.ndarray, kind: Kind, *, shifts: bool) -> Whitener:
    moments = Moments(layer_of(weight, kind))
    moments.add(rows.astype(np.float32))
    return Whitener(weight, moments, shifts=shifts)


def correlated(rng: np.random.Generator, count: int, *shape: int) -> np.ndarray:
    """Inputs in few directions, with a mean."""
    size = int(np.prod(shape))
    mix = rng.normal(size=(size, size)) * 0.7 ** np.arange(size)
    return (rng.normal(size=(count, size)) @ mix.T + rng.normal(size=size)).reshape(count, *shape)


def outputs(weight: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.einsum("goi...,gni...->ngo", weight, rows, optimize=True)


@pytest.mark.parametrize("shifts", [False, True])
def test_of_a_matrix_the_error_is_the_least_that_there_is(shifts: bool) -> None:
    rng = np.random.default_rng(0)
    weight, rows = rng.normal(size=(1, 10, 14)), correlated(rng, 4000, 14)[np.newaxis]
    found = whitener(weight, rows, Kind.DENSE, shifts=shifts).factors(Ranks(4))
    seen = rows - rows.mean(axis=1, keepdims=True) if shifts else rows
    whole = outputs(weight, seen)[:, 0]
    least = np.linalg.svd(whole, compute_uv=False)[4:]
    error = np.linalg.norm(outputs(found.weight, seen)[:, 0] - whole)
    assert error == pytest.approx(np.linalg.norm(least), rel=1e-3)
    assert (found.shift is not None) == shifts


def test_the_shift_takes_up_what_the_mean_loses() -> None:
    rng = np.random.default_rng(1)
    weight, rows = rng.normal(size=(1, 10, 14)), correlated(rng, 4000, 14)[np.newaxis] + 5
    found = whitener(weight, rows, Kind.DENSE, shifts=True).factors(Ranks(3))
    assert found.shift is not None
    gap = (outputs(found.weight, rows)[:, 0] + found.shift - outputs(weight, rows)[:, 0]).mean(0)
    assert np.abs(gap).max() < 1e-3 * np.abs(outputs(weight, rows)).mean()


@pytest.mark.parametrize("ranks", [Ranks(5, 6), Ranks(None, 4), Ranks(4, None)])
@pytest.mark.parametrize("groups", [1, 2])
def test_of_a_convolution_the_outputs_are_nearer_than_by_weights_alone(
    ranks: Ranks, groups: int
) -> None:
    rng = np.random.default_rng(2)
    weight = rng.normal(size=(groups, 12, 10, 3, 3))
    rows = np.stack([correlated(rng, 3000, 10, 3, 3) for _ in range(groups)])
    aware = whitener(weight, rows, Kind.CONVOLUTION, shifts=False)
    found = aware.factors(ranks)
    for part, rank in zip((found.inputs, found.outputs), ranks, strict=True):
        assert (None if part is None else part.shape[2]) == rank
    whole = outputs(weight, rows)
    errors = [
        float(np.linalg.norm(outputs(each.weight, rows) - whole) / np.linalg.norm(whole))
        for each in (found, plain_factors(weight, ranks))
    ]
    assert errors[0] < 0.6 * errors[1]


def test_at_full_rank_nothing_is_lost() -> None:
    rng = np.random.default_rng(3)
    weight, rows = rng.normal(size=(1, 6, 5, 3, 3)), correlated(rng, 500, 5, 3, 3)[np.newaxis]
    found = whitener(weight, rows, Kind.CONVOLUTION, shifts=True).factors(Ranks(5, 6))
    assert np.linalg.norm(found.weight - weight) < 1e-5 * np.linalg.norm(weight)


def test_channels_are_looked_at_where_filters_are_too_wide(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("coinfer.graph.compressing.moments.MOST_ELEMENTS", 200)
    rng = np.random.default_rng(4)
    weight = rng.normal(size=(1, 12, 10, 3, 3))
    rows = correlated(rng, 2000, 10)[np.newaxis, :, :, np.newaxis, np.newaxis]
    rows = rows + 0.1 * rng.normal(size=(1, 2000, 10, 3, 3))
    found = whitener(weight, rows, Kind.CONVOLUTION, shifts=False)
    whole = outputs(weight, rows)
    aware, plain = found.factors(Ranks(4, 6)), plain_factors(weight, Ranks(4, 6))
    gaps = [np.linalg.norm(outputs(each.weight, rows) - whole) for each in (aware, plain)]
    assert gaps[0] < 0.8 * gaps[1]


def test_where_filters_are_too_wide_the_outputs_seen_give_the_best_output_factor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Places of a kernel see the same, which the moment of channels does not show."""
    monkeypatch.setattr("coinfer.graph.compressing.moments.MOST_ELEMENTS", 200)
    rng = np.random.default_rng(6)
    weight, rows = rng.normal(size=(1, 12, 10, 3, 3)), correlated(rng, 2000, 10, 3, 3)[np.newaxis]
    moments = Moments(layer_of(weight, Kind.CONVOLUTION))
    moments.add(rows.astype(np.float32))
    whole = outputs(weight, rows)[:, 0]
    unseen = Whitener(weight, moments, shifts=True).factors(Ranks(None, 4))
    assert moments.made is not None
    moments.made.add(whole[:, :, np.newaxis] + 3.0, 10**6)
    found = Whitener(weight, moments, shifts=True)
    centred = rows - rows.mean(axis=1, keepdims=True)
    wanted = whole - whole.mean(axis=0)
    gaps = [
        np.linalg.norm(outputs(each.weight, centred)[:, 0] - wanted)
        for each in (found.factors(Ranks(None, 4)), unseen)
    ]
    squares = np.linalg.svd(wanted, compute_uv=False) ** 2
    assert gaps[0] == pytest.approx(squares[4:].sum() ** 0.5, rel=1e-3)
    assert gaps[0] < 0.9 * gaps[1]
    assert found.spectrum.lost(Ranks(None, 4)) == pytest.approx(squares[4:].sum() / squares.sum())


@pytest.mark.parametrize(
    "attributes",
    [
        "strides = [2, 1], pads = [1, 0, 2, 1], dilations = [1, 2]",
        'auto_pad = "SAME_UPPER", strides = [2, 3]',
        'auto_pad = "SAME_LOWER"',
        'auto_pad = "VALID", strides = [3, 2]',
    ],
)
def test_patches_are_what_the_filters_see(attributes: str) -> None:
    """Against onnx's own implementation: filters on the patches give the convolution's outputs."""
    from onnx.reference import ReferenceEvaluator

    rng = np.random.default_rng(5)
    x = rng.normal(size=(2, 4, 9, 8)).astype(np.float32)
    w = rng.normal(size=(6, 2, 3, 4)).astype(np.float32)
    model = ir.from_onnx_text(
        f"""<ir_version: 10, opset_import: ["": 20]> g (float[2,4,9,8] x, float[6,2,3,4] w)
        => (float[a,b,c,d] y) {{ y = Conv <group = 2, {attributes}> (x, w) }}"""
    )
    (expected,) = ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x, "w": w})
    [node] = model.graph
    layer = layer_of(w.reshape(2, 3, 2, 3, 4), Kind.CONVOLUTION)
    window = Window.of(node, layer, x.shape[2:])
    patches = window.patches(x, 2, 10**6, rng)
    made = outputs(w.reshape(2, 3, 2, 3, 4), patches)  # (places, groups, outputs)
    places = [*product(*map(range, (2, *expected.shape[2:])))]
    wanted = np.stack([expected[n, :, i, j] for n, i, j in places]).reshape(len(places), 2, 3)
    np.testing.assert_allclose(made, wanted, atol=1e-4)


def test_so_many_places_are_drawn_at_most() -> None:
    window = Window(kernel=(3,), strides=(1,), dilations=(1,), pads=((0, 0),))
    found = window.patches(np.ones((1, 4, 100), np.float32), 1, 10, np.random.default_rng(0))
    assert found.shape == (1, 10, 4, 3)


@pytest.mark.parametrize("shifts", [False, True])
@pytest.mark.parametrize(
    ("mean", "deviation", "count"),
    [(0.0, 0.0, 5), (1e4, 0.0, 5), (1e4, 1e-2, 500), (-3.0, 0.0, 1), (1e-12, 1e-13, 3)],
)
def test_degenerate_samples_give_factors_no_worse_than_the_weights_alone(
    mean: float, deviation: float, count: int, shifts: bool
) -> None:
    """Samples that do not vary, or hardly beside a large mean, or are fewer than channels."""
    rng = np.random.default_rng(4)
    ranks, weight = Ranks(5, 6), rng.normal(size=(1, 12, 10, 3, 3))
    rows = mean + deviation * rng.normal(size=(1, count, 10, 3, 3))
    found = whitener(weight, rows, Kind.CONVOLUTION, shifts=shifts).factors(ranks)
    plain = plain_factors(weight, ranks)
    rows = rows.astype(np.float32).astype(np.float64)

    def off(made: np.ndarray, shift: np.ndarray | None) -> float:
        gap = outputs(made, rows)[:, 0] - outputs(weight, rows)[:, 0]
        return float(np.linalg.norm(gap + (0.0 if shift is None else shift)))

    whole = np.linalg.norm(outputs(weight, rows))
    for part in (found.inputs, found.core, found.outputs):
        assert part is not None
        assert np.abs(part).max() < 1e4, "float16 holds it"
    assert off(found.weight, found.shift) <= off(plain.weight, None) + 1e-6 * whole


def test_what_varies_beside_a_large_mean_is_seen() -> None:
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(1, 4000, 8)) * np.arange(1, 9)
    weight = rng.normal(size=(1, 6, 8))
    near, far = (
        whitener(weight, rows + mean, Kind.DENSE, shifts=True).factors(Ranks(3)).weight
        for mean in (0.0, 1e4)
    )
    np.testing.assert_allclose(far, near, atol=1e-2)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_what_is_not_finite_is_said_in_a_line(value: float) -> None:
    rows = np.ones((1, 5, 14))
    rows[0, 2, 3] = value
    with pytest.raises(InputError, match=r"layer 'y' sees values .* not finite.*--plain"):
        whitener(np.ones((1, 10, 14)), rows, Kind.DENSE, shifts=True)
