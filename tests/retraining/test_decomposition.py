"""Decomposing torch modules: the same as decomposing their ONNX files."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from coinfer.backends import get_backend
from coinfer.errors import ConfigurationError, InputError
from coinfer.graph.compressing.decompose import decomposed
from coinfer.graph.compressing.factor_maker import FactorMaker
from coinfer.graph.compressing.layer import WAS, Ranks
from coinfer.graph.compressing.layers import Layers
from coinfer.graph.compressing.rank_rule import RankRule
from coinfer.graph.compressing.spectrum import Spectrum
from coinfer.graph.cost import operator_costs, total
from coinfer.metrics.paired import PairedRatio
from coinfer.model import model_from_ir
from coinfer.planner.compressing.gauge import MeasuringGauge
from coinfer.profiling.reference import REFERENCE
from coinfer.profiling.side_by_side import Contest

torch = pytest.importorskip("torch", reason="retraining needs torch")
pytest.importorskip("tensorly", reason="decomposing needs tensorly")

from coinfer.retraining import decompose, exported  # noqa: E402
from coinfer.retraining.module_layers import ModuleLayers  # noqa: E402

nn = torch.nn


def convolutions() -> Any:
    """Strides, pads, dilations, groups, with and without bias, a matrix and dense layers."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(6, 16, 3, padding=1, stride=2),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 24, (3, 5), padding=(2, 4), dilation=(2, 2), bias=False),
        nn.ReLU(),
        nn.Conv2d(24, 16, 3, groups=2, padding="same"),
        nn.Conv2d(16, 12, 1, stride=2),
        nn.Flatten(),
        nn.Linear(12 * 4 * 4, 20),
        nn.ReLU(),
        nn.Linear(20, 10, bias=False),
    ).eval()


SAMPLE = torch.randn(2, 6, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("rule", ["ratio:0.4", "energy:0.8", "macs:0.4"])
def test_a_module_and_its_onnx_file_become_the_same(rule: str) -> None:
    """Ranks, weights, operations and outputs."""
    pytest.importorskip("onnxscript", reason="torch exports by onnxscript")
    original, student = convolutions(), convolutions()
    model = exported(original, SAMPLE, name="net", inputs=["x"], outputs=["y"])
    report = decompose(student, SAMPLE[:1], ranks=rule, svd=True)

    layers = Layers.of(model.graph, svd=True)
    maker = FactorMaker(model.graph, layers)
    before = total(operator_costs(model.graph)).macs
    assert before == report.macs[0]
    others = before - sum(layer.macs() or 0 for layer in layers)
    spectra = {layer.key: Spectrum.of(maker.weight(layer.key)) for layer in layers}
    choice = RankRule.parse(rule).ranks(layers, spectra, others)
    assert [each.ranks for each in report.layers] == list(choice.values())

    small = model_from_ir(decomposed(model.graph, maker.all_of(choice)), name="small")
    assert total(operator_costs(small.graph)).macs == report.macs[1]
    session = get_backend("onnxruntime").load(small, REFERENCE)
    try:
        made = session.run({"x": SAMPLE.numpy()})["y"]
    finally:
        session.close()
    with torch.no_grad():
        expected = student(SAMPLE).numpy()
    assert np.linalg.norm(made - expected) <= 1e-5 * np.linalg.norm(expected)
    with torch.no_grad():
        lost = np.linalg.norm(original(SAMPLE).numpy() - expected)
    assert lost > 1e-2 * np.linalg.norm(expected), "something was decomposed"


def test_at_full_rank_nothing_changes() -> None:
    module = convolutions()
    with torch.no_grad():
        expected = module(SAMPLE)
        found = decompose(module, SAMPLE, ranks="ratio:1", svd=True)
        made = module(SAMPLE)
    assert len(found.layers) == 6
    assert float((made - expected).norm() / expected.norm()) < 1e-5


@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
def test_other_ways_to_pad_stay(mode: str) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1, padding_mode=mode))
    with torch.no_grad():
        expected = module(SAMPLE)
        decompose(module, SAMPLE, ranks={"0": Ranks(6, 8)})
        assert torch.allclose(module(SAMPLE), expected, atol=1e-5)


def test_one_dimension_and_three_are_decomposed_too() -> None:
    torch.manual_seed(0)
    for convolution, size in ((nn.Conv1d, (9,)), (nn.Conv3d, (5, 6, 7))):
        module = nn.Sequential(convolution(8, 8, 3, padding=1))
        sample = torch.randn(1, 8, *size)
        with torch.no_grad():
            expected = module(sample)
            decompose(module, sample, ranks="ratio:1")
            assert torch.allclose(module(sample), expected, atol=1e-4)


def test_type_gradients_mode_and_bias_are_kept() -> None:
    module = convolutions().double()
    module[3].weight.requires_grad_(False)
    module[0].train()
    bias = module[0].bias
    decompose(module, SAMPLE.double(), ranks="ratio:0.5")
    assert {each.dtype for each in module.parameters()} == {torch.float64}
    assert not any(each.requires_grad for each in module[3].parameters())
    assert all(each.requires_grad for each in module[0].parameters())
    assert module[0].last.bias is bias
    assert module[0].training
    assert not module[3].training
    assert not module.training


class _Twice(nn.Module):
    """One layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.one = self.other = nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, x: Any) -> Any:
        return self.other(self.one(x))


def test_a_layer_under_two_names_stays_one() -> None:
    module = _Twice()
    found = decompose(module, SAMPLE, ranks="ratio:0.5")
    assert len(found.layers) == 1
    assert module.one is module.other
    assert found.layers[0].layer.in_places == 2 * 2 * 16 * 16, "it runs twice"


class _Reader(nn.Module):
    """Looks at a weight without calling the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(6, 6, 3)

    def forward(self, x: Any) -> Any:
        return self.layer(x) + self.layer.weight.sum()


def test_a_module_that_reads_weights_itself_is_refused_and_stays_as_it_was() -> None:
    module = _Reader()
    with pytest.raises(ConfigurationError, match="without calling it"):
        decompose(module, SAMPLE, ranks="ratio:0.5")
    assert type(module.layer) is nn.Conv2d
    module(SAMPLE)


def test_what_is_left_has_its_reason() -> None:
    module = nn.Sequential(
        nn.Conv2d(6, 6, 3, groups=6),
        nn.ConvTranspose2d(6, 6, 3),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(6, 6, 3)),
        nn.Conv2d(6, 6, 1),
        nn.Conv2d(6, 6, 3),
        nn.Conv2d(6, 6, 3),
    )
    module[5].weight = module[4].weight
    left = ModuleLayers.of(module, SAMPLE).left
    assert [left[str(at)] for at in range(6)] == [
        "it has one channel per group",
        "it is a transposed convolution",
        "it is of a class of its own, ParametrizedConv2d",
        "1x1 convolutions are decomposed on demand only",
        "its weight is shared with another layer",
        "its weight is shared with another layer",
    ]
    encoder = nn.TransformerEncoderLayer(8, 2, batch_first=True).eval()
    reasons = ModuleLayers.of(encoder, torch.zeros(1, 3, 8), svd=True).left.values()
    assert set(reasons) >= {"torch reads its weight without calling it"}


@pytest.fixture
def times_by_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing depends on the machine."""
    ratio = PairedRatio(median=1.3, lower=1.3, upper=1.3, rounds=9)

    def seconds(gauge: Any, layer: Any, ranks: Any) -> Any:
        return {each: [layer.macs(each) * 1e-9] * len(gauge._processors) for each in ranks}

    def contests(gauge: Any, *_: Any, **__: Any) -> Any:
        return [Contest(ratio=ratio, ours_s=1.0, theirs_s=1.3)] * len(gauge._processors)

    monkeypatch.setattr(MeasuringGauge, "seconds", seconds)
    monkeypatch.setattr(MeasuringGauge, "gain", lambda *_: 1.1)
    monkeypatch.setattr(MeasuringGauge, "contests", contests)
    monkeypatch.setattr("coinfer.planner.compressing.compression.channel_block", lambda _: 1)


@pytest.mark.usefixtures("times_by_operations")
@pytest.mark.parametrize("max_error", [0.3, 0.6])
def test_ranks_by_latency_are_those_of_the_exported_file(max_error: float) -> None:
    """Within the error, which the module then has too; layers keep their names."""
    pytest.importorskip("onnxscript", reason="torch exports by onnxscript")
    original, student = convolutions(), convolutions()
    sample = torch.cat([SAMPLE, SAMPLE.flip(0) * 0.5, SAMPLE.flip(2)])
    found = decompose(student, sample, ranks="latency", svd=True, max_error=max_error)
    assert found.layers
    names = {name for name, _ in original.named_modules()}
    assert {each.layer.key for each in found.layers} <= names
    with torch.no_grad():
        expected, made = original(sample), student(sample)
    off = (made - expected).norm(dim=1) / expected.norm(dim=1)
    assert float(off.max()) <= max_error * 1.001


def test_by_latency_one_sample_is_not_enough() -> None:
    pytest.importorskip("onnxscript", reason="torch exports by onnxscript")
    with pytest.raises(InputError, match="at least 2"):
        decompose(convolutions(), SAMPLE[:1], ranks="latency")


def test_an_error_without_measuring_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="latency only"):
        decompose(convolutions(), SAMPLE, ranks="ratio:0.5", max_error=0.1)


@pytest.mark.parametrize(
    ("module", "ranks", "said"),
    [
        (nn.Sequential(nn.ReLU()), "ratio:0.5", "nothing to decompose: it has no convolutions"),
        (nn.Sequential(nn.Conv2d(6, 6, 1)), "ratio:0.5", "nothing to decompose: .*try svd=True"),
        (nn.Conv2d(6, 6, 3), "ratio:0.5", "nothing around it"),
        (nn.Sequential(nn.Conv2d(6, 6, 3)), "latency", "cannot be kept"),
        (nn.Sequential(nn.Conv2d(6, 6, 3)), "ratio:2", "out of range"),
        (nn.Sequential(nn.Conv2d(6, 6, 3)), {"0": Ranks(7, 3)}, "input rank 7 is out of range"),
        (nn.Sequential(nn.Conv2d(6, 6, 3)), {"1": Ranks(2, 3)}, "there is no such layer"),
        (nn.Sequential(nn.Conv2d(6, 6, 3)), {"0": WAS}, "leaves every layer as it is"),
        (nn.Sequential(nn.Conv2d(5, 6, 3)), "ratio:0.5", "does not run on the sample: .*give a"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("times_by_operations")
def test_what_cannot_be_done_is_said_in_a_line(module: Any, ranks: Any, said: str) -> None:
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(ConfigurationError, match=said) as caught:
        decompose(module, SAMPLE, ranks=ranks)
    assert "\n" not in str(caught.value)
    assert list(module.state_dict()) == list(before)
