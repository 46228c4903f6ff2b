"""Size rotation: how often each size comes, in which order, and that feeds follow it."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from coinfer.model import Model
from coinfer.testing.models import model_from_text
from coinfer.workload.inputs import prepare_feeds
from coinfer.workload.scenario import ModelSpec
from coinfer.workload.size_rotation import size_rotation


def spec(dims: Any, **fields: Any) -> ModelSpec:
    return ModelSpec.model_validate({"source": "x.onnx", "dims": dims, **fields})


def counts(dims: Any) -> Counter[tuple[int, ...]]:
    return Counter(tuple(one.values()) for one in size_rotation(spec(dims), "rec", 0))


def crops() -> Model:
    return model_from_text(
        '<ir_version: 10, opset_import: ["" : 18]>\n'
        "net (float[N,height,width] x) => (float[N,height,width] y) { y = Relu(x) }",
        name="rec",
    )


# --- how often --------------------------------------------------------------------------------


def test_no_sizes_are_nothing_and_single_ones_one_entry() -> None:
    assert size_rotation(ModelSpec(source="x"), "rec", 0) == ()
    assert size_rotation(ModelSpec(source="x", inputs={"npz": "x.npz"}), "rec", 0) == ()
    assert size_rotation(spec({"w": 48, "x:2": 0}), "rec", 0) == ({"w": 48, "x:2": 0},)
    assert size_rotation(spec({"w": [48, 48]}), "rec", 0) == ({"w": 48},)


@pytest.mark.parametrize(
    ("dims", "expected"),
    [
        ({"w": {48: 3, 96: 1}}, {(48,): 768, (96,): 256}),
        # 341.33 each: one has the entry that is left.
        ({"w": [48, 96, 320]}, {(48,): 342, (96,): 341, (320,): 341}),
        # 0.6, 0.3 and 0.1 of 1,024 are 614.4, 307.2 and 102.4.
        ({"w": {1: 0.6, 2: 0.3, 3: 0.1}}, {(1,): 615, (2,): 307, (3,): 102}),
        ({"h": [1, 2], "w": {3: 3, 4: 1}}, {(1, 3): 384, (1, 4): 128, (2, 3): 384, (2, 4): 128}),
        (
            [{"h": 32, "w": 48, "weight": 7}, {"h": 64, "w": 320}],
            {(32, 48): 896, (64, 320): 128},
        ),
        # Rare ones occur, and the others share what is left.
        ({"w": {1: 10**6, 2: 1, 3: 1e-9}}, {(1,): 1022, (2,): 1, (3,): 1}),
        ({"w": {1: 2**21, 2: 2**21, 3: 2**12, 4: 1}}, {(1,): 511, (2,): 511, (3,): 1, (4,): 1}),
    ],
)
def test_each_choice_comes_as_often_as_its_weight_says(
    dims: Any, expected: dict[tuple[int, ...], int]
) -> None:
    assert counts(dims) == expected


def test_as_many_choices_as_entries_come_once_each() -> None:
    weights = {size: 1 + size**3 for size in range(1024)}
    assert counts({"w": weights}) == dict.fromkeys(((size,) for size in range(1024)), 1)


# --- in which order ---------------------------------------------------------------------------


def test_the_order_follows_the_seed_and_the_name_and_is_mixed() -> None:
    dims = {"w": [48, 96]}
    first = size_rotation(spec(dims), "rec", 0)
    assert first == size_rotation(spec(dims), "rec", 0)
    assert first != size_rotation(spec(dims), "rec", 1)
    assert first != size_rotation(spec(dims), "det", 0)
    changes = sum(one != other for one, other in pairwise(first))
    assert abs(changes - 512) < 6 * 16


def test_two_dimensions_are_drawn_independently() -> None:
    rotation = size_rotation(spec({"h": [1, 2], "w": [1, 2]}), "rec", 0)
    same = [one["h"] == one["w"] for one in rotation]
    assert sum(same) == 512
    assert abs(sum(same[:512]) - 256) < 6 * 8


# --- feeds ------------------------------------------------------------------------------------


def test_feeds_have_the_sizes_of_the_rotation() -> None:
    dims = [{"height": 32, "width": 48, "weight": 3}, {"height": 8, "width": 0}]
    wanted = spec(dims, inputs={"random": 2})
    feeds = prepare_feeds(wanted.inputs, crops(), batch=2, seed=5)
    rotation = size_rotation(wanted, "rec", 5)
    assert [feed["x"].shape for feed in feeds] == [(2, s["height"], s["width"]) for s in rotation]


def test_feeds_of_equal_sizes_share_their_arrays() -> None:
    wanted = spec({"height": 4, "width": [3, 5, 7]}, inputs={"random": 2})
    feeds = prepare_feeds(wanted.inputs, crops(), batch=1, seed=0)
    arrays = {id(feed["x"]): feed["x"] for feed in feeds}
    assert len(feeds) == 1024
    assert Counter(array.shape[2] for array in arrays.values()) == {3: 2, 5: 2, 7: 2}
    assert len({array.tobytes() for array in arrays.values()}) == 6
    used = Counter(id(feed["x"]) for feed in feeds)
    assert set(used.values()) <= {170, 171}


def test_single_sizes_have_as_many_feeds_as_samples_and_the_same_ones_in_any_form() -> None:
    def noise(dims: Any) -> list[bytes]:
        wanted = spec(dims, inputs={"random": 3})
        feeds = prepare_feeds(wanted.inputs, crops(), batch=1, seed=0)
        return [feed["x"].tobytes() for feed in feeds]

    plain = noise({"height": 2, "width": 3})
    assert len(set(plain)) == len(plain) == 3
    assert plain == noise([{"width": 3, "height": 2}])
    # More sizes change nothing of the arrays that this one has.
    assert set(plain) < set(noise({"height": 2, "width": [3, 5]}))
