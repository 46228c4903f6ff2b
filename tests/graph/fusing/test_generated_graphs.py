"""Any graph that can be generated computes fused what it computes apart, in every layout."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coinfer.graph.fusing.fused_model import fuse_models
from coinfer.model import Model
from coinfer.testing.models import model_from_text
from graph.chains import random_models, run
from graph.fusing.fusions import WAYS, feeds_of, perturbed, run_fused

_QUIET = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


def assert_fused_equals_apart(model: Model, way: str, count: int, batch: int) -> None:
    models = [perturbed(model, seed).renamed(f"m{seed}") for seed in range(count)]
    feeds = feeds_of(models, batch=batch)
    fused = fuse_models(models, costs=WAYS[way])
    for each, feed, got in zip(models, feeds, run_fused(fused, feeds), strict=True):
        for name, wanted in run(each, feed).items():
            # Differences of equal values are zero, so the error is measured beside the largest too.
            limit = 1e-5 * float(np.linalg.norm(wanted)) + 1e-5
            assert float(np.linalg.norm(got[name] - wanted)) <= limit, name


@_QUIET
@given(model=random_models(), way=st.sampled_from(list(WAYS)), count=st.integers(1, 4))
def test_graphs_of_small_operators(model: Model, way: str, count: int) -> None:
    assert_fused_equals_apart(model, way, count, batch=2)


@st.composite
def convolutions(draw: st.DrawFn) -> Model:
    """Up to six layers on images: groups, strides, pads, dilations, joins and cuts of channels."""
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    lines, weights = [], []
    at, channels, size = "x", 4, 12
    for layer in range(draw(st.integers(1, 6))):
        new = f"v{layer}"
        kind = draw(st.sampled_from(("conv", "conv", "up", "pool", "norm", "cut", "join", "gate")))
        if kind in ("conv", "up"):
            groups = draw(st.sampled_from([g for g in (1, 2, 4) if channels % g == 0]))
            wide = groups * draw(st.integers(1, 3))
            kernel, stride = draw(st.integers(1, 3)), draw(st.integers(1, 2))
            low, high = draw(st.integers(0, kernel - 1)), draw(st.integers(0, kernel - 1))
            each = (
                (wide, channels // groups, kernel, kernel)
                if kind == "conv"
                else (channels, wide // groups, kernel, kernel)
            )
            weights += [_weight(f"w{layer}", each, rng), _weight(f"b{layer}", (wide,), rng)]
            op_type = "Conv" if kind == "conv" else "ConvTranspose"
            options = f"group = {groups}, strides = [{stride},{stride}], pads = "
            options += f"[{low},{low},{high},{high}]"
            lines.append(f"{new} = {op_type}<{options}>({at}, w{layer}, b{layer})")
            grown = (size - 1) * stride + kernel - low - high
            shrunk = (size + low + high - kernel) // stride + 1
            channels, size = wide, shrunk if kind == "conv" else grown
        elif kind == "pool":
            op_type = draw(st.sampled_from(("MaxPool", "AveragePool")))
            lines.append(f"{new} = {op_type}<kernel_shape = [2,2], pads = [1,1,0,0]>({at})")
        elif kind == "norm":
            weights += [_weight(f"{p}{layer}", (channels,), rng) for p in "sbm"]
            lines.append(f"d{layer} = Abs(s{layer})")
            lines.append(
                f"{new} = BatchNormalization({at}, s{layer}, b{layer}, m{layer}, d{layer})"
            )
        elif kind == "cut" and channels % 2 == 0:
            axis = draw(st.sampled_from((1, -3)))
            lines.append(f"l{layer}, r{layer} = Split<axis = {axis}, num_outputs = 2>({at})")
            lines.append(f"{new} = Sub(l{layer}, r{layer})")
            channels //= 2
        elif kind == "join":
            lines.append(f"t{layer} = Tanh({at})")
            lines.append(f"{new} = Concat<axis = 1>({at}, t{layer})")
            channels *= 2
        else:
            lines.append(f"g{layer} = GlobalAveragePool({at}) h{layer} = Sigmoid(g{layer})")
            lines.append(f"{new} = Mul({at}, h{layer})")
        at = new
        if size < 4:
            break
    lines.append(f"y = {draw(st.sampled_from(('Relu', 'Softplus', 'Softmax<axis = 1>')))}({at})")
    text = f"g (float[N,4,12,12] x) => (float[N,C,H,W] y) <{', '.join(weights) or 'float u = {1}'}>"
    return model_from_text(f"{text} {{ {' '.join(lines)} }}", name="generated")


def _weight(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> str:
    drawn = ", ".join(f"{each:.3f}" for each in rng.standard_normal(int(np.prod(shape))) * 0.5)
    return f"float[{','.join(map(str, shape))}] {name} = {{{drawn}}}"


@_QUIET
@given(
    model=convolutions(),
    way=st.sampled_from(list(WAYS)),
    count=st.integers(1, 4),
    batch=st.integers(1, 3),
)
def test_graphs_of_convolutions(model: Model, way: str, count: int, batch: int) -> None:
    assert_fused_equals_apart(model, way, count, batch)
