"""What tests of ensembles need: a detector, a classifier, and an engine that answers by hand."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from coinfer.ensembles import EnsembleDescription, parse_ensemble
from coinfer.model import Model
from coinfer.testing.models import model_from_text

FACES = """
ensemble: faces
inputs: {image: {datatype: FP32, shape: [1, 1, 64, 64]}}
stages:
  - {name: find, model: detector, inputs: {image: image}}
  - name: cut
    call: "steps:cut"
    inputs: {image: image, heat: find.heat}
    outputs: {crops: {datatype: FP32, shape: [COUNT, 1, 8, 8]}}
  - {name: name, model: classifier, each: cut.crops, inputs: {crop: cut.crops}}
outputs: {scores: name.scores, heat: find.heat}
"""

STEPS = """
import numpy as np

def cut(image, heat):
    rows, columns = np.nonzero(heat[0, 0] > 0.5)
    cells = [image[0, :, 8 * r : 8 * r + 8, 8 * c : 8 * c + 8] for r, c in zip(rows, columns)]
    return {"crops": np.array(cells, np.float32).reshape(-1, 1, 8, 8)}
"""


def detector() -> Model:
    """heat[1,1,8,8]: how bright each cell of image[1,1,64,64] is."""
    text = """agraph (float[1,1,64,64] image) => (float[1,1,8,8] heat)
        { heat = AveragePool<kernel_shape = [8,8], strides = [8,8]>(image) }"""
    return model_from_text(text, name="detector")


def classifier() -> Model:
    """scores[N,64]: the pixels of crop[N,1,8,8], doubled."""
    text = """agraph (float[N,1,8,8] crop) => (float[N,64] scores)
        <float two = {2}> { flat = Flatten(crop)  scores = Mul(flat, two) }"""
    return model_from_text(text, name="classifier")


MODELS = {"detector": detector(), "classifier": classifier()}


def picture(*cells: int) -> dict[str, npt.NDArray[np.float32]]:
    """A dark picture in which these cells, counted row by row, are bright."""
    image = np.zeros((1, 1, 64, 64), np.float32)
    for cell in cells:
        row, column = divmod(cell, 8)
        image[0, 0, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 1 + cell / 100
    return {"image": image}


def described(folder: Path, text: str = FACES, steps: str = STEPS) -> EnsembleDescription:
    (folder / "steps.py").write_text(steps)
    return parse_ensemble(text, base=folder, origin="faces.yaml")


class Asked(NamedTuple):
    """One request that an ensemble made."""

    model: str
    inputs: dict[str, Any]
    terms: dict[str, Any]
    future: Future[dict[str, Any]]


class EngineByHand:
    """Takes requests, and answers when the test says so; `refusal` is raised instead."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.refusal: Exception | None = None

    def submit(self, name: str, inputs: dict[str, Any], **terms: Any) -> Future[dict[str, Any]]:
        if self.refusal is not None:
            raise self.refusal
        future: Future[dict[str, Any]] = Future()
        self.asked.append(Asked(name, inputs, terms, future))
        return future

    def of(self, model: str) -> list[Asked]:
        return [each for each in self.asked if each.model == model]
