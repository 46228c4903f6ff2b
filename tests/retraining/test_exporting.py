"""From torch to ONNX: what onnxruntime and coinfer compute is what torch computes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import coinfer
from coinfer.errors import InputError, ModelError

torch = pytest.importorskip("torch", reason="retraining needs torch")
pytest.importorskip("onnxscript", reason="torch exports by onnxscript")
pytest.importorskip("tensorly", reason="decomposing needs tensorly")

from coinfer.retraining import decompose, exported  # noqa: E402
from retraining.digits import digits, network  # noqa: E402


def test_a_decomposed_module_makes_the_round_trip(tmp_path: Path) -> None:
    module = network()
    module(digits()[0][:64])  # the norm has statistics now
    decompose(module, digits()[0][:1], ranks="ratio:0.3", svd=True)
    module.train()
    model = exported(module, digits()[0][:3], name="digits", inputs=["image"], outputs=["scores"])
    assert module.training
    path = tmp_path / "digits.onnx"
    path.write_bytes(model.to_bytes())
    assert [spec.shape for spec in coinfer.load_model(path).inputs] == [("batch", 1, 8, 8)]

    module.eval()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for count in (1, 5, 32):
        images = digits()[0][100 : 100 + count]
        with torch.no_grad():
            expected = module(images).numpy()
        (made,) = session.run(None, {"image": images.numpy()})
        np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-5)
        with coinfer.Engine(models={"digits": path}, measure_s=0) as engine:
            (served,) = engine.infer("digits", {"image": images.numpy()}).values()
        np.testing.assert_allclose(served, expected, rtol=1e-4, atol=1e-5)


class _Random(torch.nn.Module):
    """Never twice the same."""

    def forward(self, x: Any) -> Any:
        return x + torch.rand_like(x)


class _Branching(torch.nn.Module):
    """Asks a value what to do."""

    def forward(self, x: Any) -> Any:
        return x * 2 if float(x.sum()) > 0 else x


class _Named(torch.nn.Module):
    """Gives its outputs by name."""

    def forward(self, x: Any) -> Any:
        return {"twice": x * 2}


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (_Random(), "off by"),
        (_Branching(), "cannot be exported"),
        (_Named(), "give one tensor or a tuple"),
    ],
)
def test_what_cannot_be_exported_rightly_is_refused(module: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        exported(copy.deepcopy(module), torch.ones(2, 3), name="odd")
    assert "\n" not in str(caught.value)


class _Scaled(torch.nn.Module):
    """Takes a single number beside its batch."""

    def forward(self, x: Any, factor: Any) -> Any:
        return x * factor


def test_an_argument_without_a_batch_is_said_in_a_line() -> None:
    sample = (torch.ones(2, 3), torch.tensor(2.0))
    with pytest.raises(InputError, match=r"argument 1 .* single number.*make it a part") as caught:
        exported(_Scaled(), sample, name="scaled")
    assert "\n" not in str(caught.value)
