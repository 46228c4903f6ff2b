"""Builders: small models of a numpy reference cut at given places, with made-up times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from coinfer.graph.cut_model import CutModel, SpanModel
from coinfer.graph.extract import extract
from coinfer.graph.operators import Operators
from coinfer.graph.partition import Partition, partition_at
from coinfer.graph.partition_options import Mode
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.machine.span import Span
from coinfer.model import Model
from coinfer.testing.models import Example, model_from_text

_Arrays = Mapping[str, npt.NDArray[Any]]


def chain_with_skip(name: str = "chain") -> Example:
    """Five operators, one after the other, with a skip connection and an output made early."""
    rng = np.random.default_rng(3)
    v, w = (rng.standard_normal((4, 4)).astype(np.float32) for _ in range(2))
    literal = {k: ", ".join(f"{x:.9g}" for x in a.ravel()) for k, a in {"v": v, "w": w}.items()}
    model = model_from_text(
        f"""agraph (float[N,4] x) => (float[N,4] early, float[N,4] y)
        <float[4,4] v = {{{literal["v"]}}}, float[4,4] w = {{{literal["w"]}}}>
        {{ a = MatMul(x, v)  early = Relu(a)  c = MatMul(early, w)
           d = Add(c, a)  y = Tanh(d) }}""",
        name=name,
    )

    def reference(x: _Arrays) -> dict[str, npt.NDArray[Any]]:
        a = x["x"] @ v
        early = np.maximum(a, 0)
        return {"early": early, "y": np.tanh(early @ w + a)}

    return Example(model=model, reference=reference)


def two_branches(name: str = "branchy") -> Example:
    """A stem, two branches of two operators each, a sum, and a last operator: six groups and one.

    Cut before 1, 3, 5 and 6, units 1 and 2 are the branches.
    """
    rng = np.random.default_rng(5)
    v, w = (rng.standard_normal((4, 4)).astype(np.float32) for _ in range(2))
    literal = {k: ", ".join(f"{x:.9g}" for x in a.ravel()) for k, a in {"v": v, "w": w}.items()}
    model = model_from_text(
        f"""agraph (float[N,4] x) => (float[N,4] early, float[N,4] y)
        <float[4,4] v = {{{literal["v"]}}}, float[4,4] w = {{{literal["w"]}}}>
        {{ a = MatMul(x, v)  b = Relu(a)  l = MatMul(b, w)  early = Tanh(a)
           r = MatMul(early, v)  s = Add(l, r)  y = Tanh(s) }}""",
        name=name,
    )

    def reference(x: _Arrays) -> dict[str, npt.NDArray[Any]]:
        a = x["x"] @ v
        early = np.tanh(a)
        return {"early": early, "y": np.tanh(np.maximum(a, 0) @ w + early @ v)}

    return Example(model=model, reference=reference)


def cut(
    model: Model,
    positions: Iterable[int],
    processors: Iterable[str],
    *,
    mode: Mode = Mode.MERGED,
    unit_s: Mapping[str, float] | None = None,
    only: Mapping[str, Iterable[tuple[int, int]]] | None = None,
) -> CutModel:
    """Cut a model; each unit takes 0.1 ms on each processor, or what `unit_s` says.

    `only` says, for the processors named in it, which spans they may run.
    """
    names = list(processors)
    everything = frozenset(range(len(Operators.of(model.graph))))
    partition = partition_at(model, positions, dict.fromkeys(names, everything), mode=mode)
    return partitioned(model, partition, names, unit_s=unit_s, only=only)


def partitioned(
    model: Model,
    partition: Partition,
    names: Iterable[str],
    *,
    unit_s: Mapping[str, float] | None = None,
    only: Mapping[str, Iterable[tuple[int, int]]] | None = None,
) -> CutModel:
    """Make all spans of a partition; times as in `cut`."""
    names = list(names)
    units = len(partition.units)
    outputs = tuple(spec.name for spec in model.outputs)
    entries: dict[ProfileKey, Measurement] = {}
    pieces: dict[Span, SpanModel] = {}
    for span in partition.spans:
        for name in names:
            if only is not None and name in only and tuple(span) not in list(only[name]):
                continue
            each_s = 1e-4 if unit_s is None else unit_s[name]
            seconds = each_s * (span.last - span.first + 1)
            key = ProfileKey(model.name, name, 1, span)
            entries[key] = Measurement(seconds=(seconds,))
        after = partition.keep_after(span.last + 1)
        pieces[span] = SpanModel(
            model=extract(model, partition, span),
            keeps=outputs if span.last == units - 1 else tuple(sorted(after)),
        )
    used = {key.span for key in entries}
    return CutModel(
        model=model,
        units=units,
        pieces={span: piece for span, piece in pieces.items() if span in used},
        profile=Profile(entries),
        forks=partition.forks,
    )
