"""No output of a fused model depends on what another model is given."""

from __future__ import annotations

import numpy as np
import pytest

from coinfer.graph.fusing.fused_model import fuse_models
from graph.chains import run
from graph.fusing.fusions import WAYS, copies, feeds_of, run_fused, zoo_models
from graph.fusing.test_equality import OPERATORS, text_of

NETWORKS = ("tiny_cnn", "tiny_branchy", "tiny_encoder", "lenet")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NETWORKS)
def test_another_input_changes_no_bit_of_other_outputs(name: str, way: str) -> None:
    models = zoo_models(name, 3)
    fused = fuse_models(models, costs=WAYS[way])
    feeds = feeds_of(models, batch=2)
    before = run_fused(fused, feeds)
    for changed in range(3):
        fresh = models[changed].sample_inputs(batch=2, seed=99)
        after = run_fused(fused, [fresh if at == changed else f for at, f in enumerate(feeds)])
        for at in range(3):
            same = all(np.array_equal(before[at][n], array) for n, array in after[at].items())
            assert same == (at != changed)


FLOATS = [title for title in OPERATORS if title not in ("quantised", "sizes that follow the input")]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("title", [t for t in FLOATS if "embedding" not in t])
def test_nan_and_infinity_reach_no_other_model(title: str, way: str, bad: float) -> None:
    models = copies(text_of(OPERATORS[title]), 3)
    fused = fuse_models(models, costs=WAYS[way])
    feeds = feeds_of(models, batch=2)
    before = run_fused(fused, feeds)
    wrong = {name: np.full_like(array, bad) for name, array in feeds[1].items()}
    after = run_fused(fused, [feeds[0], wrong, feeds[2]])
    for at in (0, 2):
        for name, array in after[at].items():
            np.testing.assert_array_equal(array, before[at][name], err_msg=name)


def test_a_wrong_id_is_an_error_and_no_row_of_another_table() -> None:
    models = copies(text_of(OPERATORS["an embedding, ids below 0 included"]), 2)
    fused = fuse_models(models, costs=WAYS["stacked"])
    good = {"ids": np.array([[1, 2, 3]])}
    assert fused.counts()["Gather"]
    run_fused(fused, [good, good])
    for wrong in (8, -6):  # the table has 6 rows, and 1 is taken from each id
        with pytest.raises(Exception, match=r"(?i)index|indices"):
            run(models[0], {"ids": np.array([[1, wrong, 3]])})
        with pytest.raises(Exception, match=r"(?i)index|indices"):
            run_fused(fused, [{"ids": np.array([[1, wrong, 3]])}, good])
