"""Size guess: sizes for open dimensions that nobody stated. A guess; `Outline` says what fits.

Rule: height and width of what looks like a picture (rank 4, one axis of 1, 3 or 4 channels, or two
open axes at its end) are those that trained networks mostly have, and its first axis is 1. All
others are taken for the length of a sequence, but for the second of three axes whose others are
fixed: that counts the sequences of which it is a state, and is 1. Next to each guess stands one in
which all first axes are 1. A dimension that exporters named as the sum of
others, like `past + 1`, is that sum. Of the candidates the first counts that no operator
contradicts, or the very first where all are contradicted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from coinfer.model.inputs import open_axes, sample_bytes
from coinfer.model.model import Model
from coinfer.model.specs import TensorSpec

__all__ = ["guessed_sizes"]

_PICTURES = (224, 256, 320, 640, 512, 299, 128, 64, 48, 32)
_SEQUENCES = (128, 64, 256, 32, 512, 16, 8, 4, 2, 1)
_SUM = re.compile(r"\s*([A-Za-z_][\w.]*|\d+)\s*\+\s*([A-Za-z_][\w.]*|\d+)\s*")
_CHANNELS = (1, 3, 4)

_LARGE = 2**28
"""Bytes of inputs that nobody meant: what is tried is run, which takes several times that."""


def guessed_sizes(model: Model, known: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Yield sizes for the open dimensions that are not known, the likeliest first.

    Those that the model's operators contradict are left out, as far as can be told, and those whose
    inputs take very much; but for one that stands for itself: something must be tried.

    Args:
        model: A model.
        known: Sizes of some open dimensions, by name.

    >>> from coinfer.testing.models import model_from_text
    >>> relu = "m (float[n,3,h,w] x) => (float[n,3,h,w] y) { y = Relu(x) }"
    >>> next(guessed_sizes(model_from_text(relu, name="m"), {"h": 48}))
    {'w': 224}
    """
    contradicted = True
    for sizes in _candidates(model, known):
        if _bytes(model, {**known, **sizes}) <= _LARGE and _fits(model, {**known, **sizes}):
            contradicted = False
            yield sizes
    if contradicted:
        yield next(_candidates(model, known))


def _candidates(model: Model, known: Mapping[str, int]) -> Iterator[dict[str, int]]:
    pictures, ones = _of_pictures(model)
    ones |= _of_states(model)
    firsts = {name for spec in model.inputs for axis, name in open_axes(spec) if axis == 0}
    unknown = [name for name in model.open_dims if name not in known]
    for picture, length in zip(_PICTURES, _SEQUENCES, strict=True):
        sizes = {name: picture if name in pictures else length for name in unknown}
        sizes |= {name: 1 for name in unknown if name in ones}
        for also in (set(), firsts.intersection(unknown) - ones):
            guess = {**sizes, **dict.fromkeys(also, 1)}
            for name in unknown:
                guess[name] = _sum_of(name, {**known, **guess}) or guess[name]
            if not also or guess != sizes:
                yield guess


def _of_pictures(model: Model) -> tuple[set[str], set[str]]:
    """Return the dimensions of pictures, and those that count pictures."""
    found: tuple[set[str], set[str]] = set(), set()
    for spec in model.inputs:
        if _is_picture(spec):
            for axis, name in open_axes(spec):
                found[axis == 0].add(name)
    return found


def _of_states(model: Model) -> set[str]:
    """Return the dimensions that count the sequences of a recurrent network, by its states."""
    found: set[str] = set()
    for spec in model.inputs:
        if len(spec.shape) == 3 and [axis for axis, _ in open_axes(spec)] == [1]:
            found.update(name for _, name in open_axes(spec))
    return found


def _is_picture(spec: TensorSpec) -> bool:
    if len(spec.shape) != 4:
        return False
    channels = spec.shape[1] in _CHANNELS or spec.shape[3] in _CHANNELS
    return channels or not any(isinstance(dim, int) for dim in spec.shape[2:])


def _sum_of(name: str, sizes: Mapping[str, int]) -> int | None:
    found = _SUM.fullmatch(name)
    if found is None:
        return None
    parts = [int(part) if part.isdecimal() else sizes.get(part) for part in found.groups()]
    return None if None in parts else sum(part for part in parts if part is not None)


def _bytes(model: Model, sizes: Mapping[str, int]) -> int:
    batch = 1 if model.batch_symbol is None else sizes.get(model.batch_symbol, 1)
    others = {name: size for name, size in sizes.items() if name != model.batch_symbol}
    return sample_bytes(model.input_check, batch=batch, dims=others)


def _fits(model: Model, sizes: Mapping[str, int]) -> bool:
    if model.outline is None:
        return True
    named = {**sizes, **({} if model.batch_symbol is None else {model.batch_symbol: 1})}
    shapes = {}
    for spec in model.inputs:
        if spec.name in model.defaults:
            shapes[spec.name] = model.defaults[spec.name].shape
            continue
        names = dict(open_axes(spec))
        shapes[spec.name] = tuple(
            dim if isinstance(dim, int) else named[names[axis]]
            for axis, dim in enumerate(spec.shape)
        )
    return model.outline.fits(shapes)
