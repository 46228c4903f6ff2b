"""Trained networks in int8: how much faster they are, and how far off.

    python benchmarks/int8.py [--quick] [--networks digits det rec cls] [--max-error E]

`digits` is trained here (`digits.py`; torch and scikit-learn); the others are those of
`rapidocr-onnxruntime` (PP-OCR), on rendered text. What is not installed is left out. Errors are
the largest ||out - ref|| / ||ref|| over held-out samples and processors.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from coinfer.api.compression import compress
from coinfer.errors import CoinferError
from coinfer.model import load_model
from compression_inputs import FILES, pictures
from environment import OtherWork, print_environment
from tables import new_console, new_table


def main() -> int:
    """Quantise, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the smallest: shows that it works")
    parser.add_argument("--networks", nargs="+", choices=["digits", *FILES], default=None)
    parser.add_argument("--max-error", type=float, default=0.1)
    arguments = parser.parse_args()
    console = new_console()
    print_environment(console)
    figures = ["layers", "weights", "fp32 ms", "int8 ms", "times as fast", "error", "accuracy"]
    table = new_table(["network", "processor"], figures, wraps=True)
    names = arguments.networks or (["digits"] if arguments.quick else ["digits", *FILES])
    with OtherWork() as other:
        for name in names:
            for row in _rows(name, arguments.max_error, 1 if arguments.quick else 10):
                table.add_row(name, *row)
    console.print(table)
    console.print(other.note)
    return 0


def _rows(name: str, max_error: float, epochs: int) -> list[tuple[str, ...]]:
    needed = ("torch", "onnxscript", "sklearn") if name == "digits" else ("rapidocr_onnxruntime",)
    if missing := [each for each in needed if importlib.util.find_spec(each) is None]:
        return [(f"{', '.join(missing)} not installed", *["-"] * 7)]
    model, samples, test = _digits(epochs) if name == "digits" else _text(name)
    try:
        found = compress(model, int8=True, max_error=max_error, samples=samples)
    except CoinferError as error:
        return [(str(error)[:60], *["-"] * 7)]
    report, accuracy = found.report, "-"
    if report.int8 is None:
        return [("left as it is", *["-"] * 7)]
    if test is not None:
        accuracy = " ".join(f"{_accuracy(each, *test):.1%}" for each in (model, found.model))
    layers = "{} of {}".format(*report.int8.layers)
    before, after = report.int8.weight_bytes
    return [
        (
            row.name,
            layers,
            f"{after / before:.0%}",
            *(f"{s * 1e3:.3f}" for s in (row.before_s, row.after_s)),
            str(row.ratio),
            f"{report.output_error:.3f}",
            accuracy,
        )
        for row in report.processors
    ]


def _digits(epochs: int) -> tuple[Any, list[dict[str, Any]], Any]:
    """Return the network, samples that it was trained on, and test data."""
    from coinfer.retraining import Recipe, exported, train
    from digits import Digits, network

    data, module = Digits.load(0), network(0)
    recipe = Recipe(epochs=epochs, learning_rate=2e-3)
    train(module, None, data.training, data.validation, recipe=recipe)
    model = exported(module, data.images[:1], name="digits", inputs=["image"], outputs=["scores"])
    samples = [{"image": each[np.newaxis].numpy()} for each in data.images[:180]]
    images, classes = data.test.dataset.tensors
    return model, samples, (images.numpy(), classes.numpy())


def _text(name: str) -> tuple[Any, list[dict[str, Any]], Any]:
    found = importlib.util.find_spec("rapidocr_onnxruntime")
    assert found is not None
    assert found.origin is not None
    model = load_model(Path(found.origin).parent / "models" / FILES[name])
    return model, [{model.inputs[0].name: each[np.newaxis]} for each in pictures(name)], None


def _accuracy(model: Any, images: Any, classes: Any) -> float:
    from coinfer.backends.registry import get_backend
    from coinfer.profiling.reference import REFERENCE

    session = get_backend(REFERENCE.backend).load(model, REFERENCE)
    try:
        (scores,) = session.run({model.inputs[0].name: images}).values()
    finally:
        session.close()
    return float((np.asarray(scores).argmax(1) == classes).mean())


if __name__ == "__main__":
    raise SystemExit(main())
