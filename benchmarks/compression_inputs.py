"""What inputs gain: a trained network decomposed by its weights alone, and with samples.

    python benchmarks/compression_inputs.py [--quick] [--network det|rec|cls]

The networks are those of `rapidocr-onnxruntime` (PP-OCR; `pip install --no-deps
rapidocr-onnxruntime`), the samples rendered text. Errors are the largest ||out - ref|| / ||ref||
over held-out samples. Nothing is timed.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from coinfer.api.compression import compress
from coinfer.errors import CoinferError
from coinfer.model import load_model
from tables import new_console, new_table

FILES = {
    "det": "ch_PP-OCRv4_det_infer.onnx",
    "rec": "ch_PP-OCRv4_rec_infer.onnx",
    "cls": "ch_ppocr_mobile_v2.0_cls_infer.onnx",
}
RULES = (
    ("macs:0.8", False),
    ("macs:0.7", True),
    ("macs:0.5", True),
    ("ratio:0.5", True),
    ("ratio:0.5", False),
)
"""Ranks, and whether matrices are decomposed too."""

TEXT = (
    "the quick brown fox jumps over lazy dog network model runs fast 2026 1,234.50 EUR invoice "
    "total sum date name street city phone order number price tax latency rank error share"
)

Picture = npt.NDArray[np.float32]


def main() -> int:
    """Compress by each rule in both ways, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=FILES, default="det")
    parser.add_argument("--quick", action="store_true", help="one rule: shows that it works")
    arguments = parser.parse_args()
    name = arguments.network
    console = new_console()
    found = importlib.util.find_spec("rapidocr_onnxruntime")
    if found is None or found.origin is None:
        console.print("rapidocr-onnxruntime is not installed; nothing is compared")
        return 0
    model = load_model(Path(found.origin).parent / "models" / FILES[name])
    samples = [{model.inputs[0].name: each[np.newaxis]} for each in pictures(name)]
    table = new_table(["ranks", "svd"], ["MACs removed", "plain", "with inputs", "plain / with"])
    for rule, svd in RULES[: 1 if arguments.quick else None]:
        table.add_row(rule, "yes" if svd else "no", *_figures(model, samples, rule, svd))
    console.print(table)
    return 0


def _figures(model: Any, samples: list[dict[str, Any]], rule: str, svd: bool) -> tuple[str, ...]:
    try:
        plain, aware = (
            compress(
                model, ranks=rule, samples=samples, svd=svd, data_aware=each, processors=[]
            ).report
            for each in (False, True)
        )
    except CoinferError as error:
        return (str(error)[:40], "-", "-", "-")
    errors = (plain.output_error or 0.0, aware.output_error or 0.0)
    removed = " ".join(f"{each.macs_removed or 0:.1%}" for each in (plain, aware))
    return (removed, *(f"{each:.3f}" for each in errors), f"{errors[0] / errors[1]:.2f}x")


def pictures(network: str, count: int | None = None) -> list[Picture]:
    """Return samples of a network: lines of text, or pages of it."""
    rng = np.random.default_rng(0)
    if network == "det":
        return [_page(rng, 320) for _ in range(count or 18)]
    return [_line(rng, {"rec": 320, "cls": 192}[network], 48) for _ in range(count or 48)]


def _line(rng: np.random.Generator, width: int, height: int) -> Picture:
    """Draw a line of words, a little tilted, blurred and noisy, from -1 to 1."""
    text = " ".join(rng.choice(TEXT.split(), rng.integers(1, 5)))
    text = text.upper() if rng.random() < 0.3 else text
    size = int(rng.integers(int(height * 0.45), int(height * 0.8)))
    paper, ink = rng.integers(120, 256, 3), rng.integers(0, 110, 3)
    if rng.random() < 0.25:
        paper, ink = ink, paper
    colour = tuple(int(each) for each in paper)
    picture = Image.new("RGB", (width, height), colour)
    place = (int(rng.integers(0, 12)), int(rng.integers(0, max(1, height - size))))
    ImageDraw.Draw(picture).text(
        place, text, fill=tuple(int(each) for each in ink), font=ImageFont.load_default(size)
    )
    picture = picture.rotate(
        float(rng.normal(0, 1.5)), fillcolor=colour, resample=Image.Resampling.BILINEAR
    )
    if rng.random() < 0.5:
        picture = picture.filter(ImageFilter.GaussianBlur(float(rng.random() * 1.2)))
    pixels = np.asarray(picture, np.float32) + rng.normal(0, rng.random() * 10, (height, width, 3))
    return ((np.clip(pixels, 0, 255) / 255 - 0.5) / 0.5).transpose(2, 0, 1).astype(np.float32)


def _page(rng: np.random.Generator, size: int) -> Picture:
    """Put lines below one another."""
    page = (0.8 + rng.normal(0, 0.05, (3, size, size))).astype(np.float32)
    y = 4
    while y < size - 40:
        height, width = int(rng.integers(16, 40)), int(rng.integers(size // 3, size - 10))
        x = int(rng.integers(0, size - width))
        page[:, y : y + height, x : x + width] = _line(rng, width, height)
        y += height + int(rng.integers(2, 20))
    return page


if __name__ == "__main__":
    raise SystemExit(main())
