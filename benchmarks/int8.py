"""Trained networks in int8: how much faster they are, and how far off.

    python benchmarks/int8.py [--quick] [--networks digits minilm pitch ...] [--batch N]
        [--samples N] [--max-error E]

Networks are those of `trained_networks.py`, and text detector and recogniser of
`rapidocr-onnxruntime` (PP-OCR) on rendered text. What is not installed is left out. Errors are the
largest ||out - ref|| / ||ref|| over held-out samples and processors; accuracies those on data that
chose nothing. With a batch, each sample is so many inputs.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coinfer.api.compression import compress
from coinfer.errors import CoinferError
from coinfer.model import load_model
from compression_inputs import FILES, pictures
from environment import OtherWork, print_environment
from tables import new_console, new_table
from trained_networks import TRAINED, Trained, digits, missing

TEXT = ("det", "rec")


def main() -> int:
    """Quantise, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the smallest: shows that it works")
    parser.add_argument("--networks", nargs="+", choices=[*TRAINED, *TEXT], default=None)
    parser.add_argument("--max-error", type=float, default=0.1)
    parser.add_argument("--samples", type=int, default=180, help="at most, of batch 1")
    parser.add_argument("--batch", type=int, default=1, help="inputs in each sample")
    arguments = parser.parse_args()
    console = new_console()
    print_environment(console)
    figures = ["layers", "weights", "fp32 ms", "int8 ms", "times as fast", "error", "accuracy"]
    names = arguments.networks or (["digits"] if arguments.quick else [*TRAINED, *TEXT])
    with OtherWork() as other:
        for name in names:
            table = new_table([name], figures, wraps=True)
            try:
                for row in _rows(name, arguments):
                    table.add_row(*row)
            except CoinferError as error:
                console.print(f"{name}: {error}")
                continue
            console.print(table)
    console.print(other.note)
    return 0


def _rows(name: str, arguments: argparse.Namespace) -> list[tuple[str, ...]]:
    is_absent = name in TEXT and importlib.util.find_spec("rapidocr_onnxruntime") is None
    if absent := ["rapidocr_onnxruntime"] * is_absent or (missing(name) if name in TRAINED else []):
        return [(f"{', '.join(absent)} not installed", *["-"] * 7)]
    trained = _text(name) if name in TEXT else _trained(name, arguments.quick)
    samples = _batches(trained.samples[: arguments.samples], arguments.batch)
    found = compress(trained.model, int8=True, max_error=arguments.max_error, samples=samples)
    report, accuracy = found.report, "-"
    if report.int8 is None:
        return [("left as it is", *["-"] * 7)]
    if name in TRAINED:
        models = (trained.model, found.model)
        accuracy = " ".join(f"{trained.accuracy(each):.1%}" for each in models)
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


def _trained(name: str, is_quick: bool) -> Trained:
    return digits(epochs=1) if is_quick else TRAINED[name][1]()


def _text(name: str) -> Trained:
    found = importlib.util.find_spec("rapidocr_onnxruntime")
    assert found is not None
    assert found.origin is not None
    model = load_model(Path(found.origin).parent / "models" / FILES[name])
    samples = [{model.inputs[0].name: each[np.newaxis]} for each in pictures(name)]
    return Trained(model, samples, lambda _: float("nan"))


def _batches(samples: Sequence[Mapping[str, Any]], batch: int) -> list[dict[str, Any]]:
    return [
        {
            name: np.concatenate([each[name] for each in samples[at : at + batch]])
            for name in samples[at]
        }
        for at in range(0, len(samples) - batch + 1, batch)
    ]


if __name__ == "__main__":
    raise SystemExit(main())
