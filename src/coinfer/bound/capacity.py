"""Capacity: which processor can run which span of which model, in what time, on which units.

A request flows through the unit boundaries of its model: an edge leads from one boundary to another
where a processor can run the span between them. A model of one unit has one edge per processor.

Makes the matrices of the programs in `coinfer.bound.program`. Solves nothing itself.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from coinfer.errors import ConfigurationError
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile, ProfileKey
from coinfer.machine.span import Span

__all__ = [
    "NO_BATCHES",
    "NO_FUSED",
    "NO_SHAPES",
    "NO_VARIANTS",
    "Capacity",
    "Edge",
    "FusedModels",
    "Matrix",
    "Seconds",
    "Shapes",
    "Variants",
]

Seconds: TypeAlias = Profile | Mapping[str, Mapping[str, float]]
"""Mean seconds per model and processor, or of spans too; what is missing cannot run."""

Matrix: TypeAlias = npt.NDArray[np.float64]

NO_BATCHES: Mapping[str, int] = MappingProxyType({})

Shapes: TypeAlias = Mapping[str, Mapping[int, float]]
"""By model, how often its requests are of which class of sizes (`coinfer.plan.work`)."""

NO_SHAPES: Shapes = MappingProxyType({})

Variants: TypeAlias = Mapping[str, Sequence[str]]
"""By model, the names of variants that may answer its requests in its place."""

NO_VARIANTS: Variants = MappingProxyType({})

_Table: TypeAlias = dict[Span, dict[str, float]]
"""The seconds of one request by span and processor."""
FusedModels: TypeAlias = Mapping[str, Sequence[str]]
"""By fused variant, the models of which one run serves a request each."""

NO_FUSED: FusedModels = MappingProxyType({})


class Edge(NamedTuple):
    """A span of a model on a processor; both by position."""

    model: int
    processor: int
    span: Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """Models, processors, and the edges on which both can work together.

    Attributes:
        models: Names of the models that are asked for; of one with requests of several classes of
            sizes once for each, as these may be served by different processors.
        amounts: How much is asked for of each (a weight, rate or count), all positive.
        processors: Names of the processors.
        units: Names of the compute units of all processors.
        occupies: By processor, the positions in `units` that it occupies.
        edges: (model, processor) by position and the span, one per span that can run somewhere.
        seconds: Seconds per execution, one per edge.
        steps: By model, its number of unit subgraphs.
    """

    models: tuple[str, ...]
    amounts: npt.NDArray[np.float64]
    processors: tuple[str, ...]
    units: tuple[str, ...]
    occupies: tuple[tuple[int, ...], ...]
    edges: tuple[Edge, ...]
    seconds: npt.NDArray[np.float64]
    steps: tuple[int, ...]

    @classmethod
    def of(
        cls,
        seconds: Seconds,
        processors: Sequence[Processor],
        amounts: Mapping[str, float],
        batches: Mapping[str, int] = NO_BATCHES,
        shapes: Shapes = NO_SHAPES,
        together: Mapping[str, int] = NO_BATCHES,
        variants: Variants = NO_VARIANTS,
        fused: FusedModels = NO_FUSED,
    ) -> Capacity:
        """Collect what can run where; models of amount zero and unknown processors are left out.

        Args:
            seconds: Of one request; a profile tells them for any batch size.
            processors: Those that may be used.
            amounts: How much is asked for, by model.
            batches: Samples per request by model where it is not 1; for profiles only.
            shapes: By model, how often requests are of which class of sizes, where they are not all
                of class 0; for profiles only.
            together: By model, how many samples one execution may serve at most for several
                requests; the share of a request in the cheapest such run is what it costs. For
                profiles only.
            variants: By model, the names of others that may answer its requests in its place.
            fused: By fused variant, the models of which one run serves a request each; the share in
                a run that serves all that are asked for is what a request costs at least. For
                profiles only.

        Raises:
            ConfigurationError: amounts or times that make no sense, or a model that no processor
                runs.
        """
        asked = [
            (model, shape, amount * share)
            for model, amount in _asked(amounts).items()
            for shape, share in _shares(shapes.get(model)).items()
        ]
        tables = [
            _side_by_side(
                [
                    _spans(seconds, name, batches.get(model, 1), shape, together.get(name, 0))
                    for name in (model, *variants.get(model, ()))
                ]
            )
            for model, shape, _ in asked
        ]
        _share_fused(seconds, asked, tables, batches, fused)
        steps = tuple(max((span.last + 1 for span in table), default=1) for table in tables)
        names = tuple(p.name for p in processors)
        runnable = [
            (Edge(m, k, span), _checked(value, model, name))
            for m, ((model, _, _), table) in enumerate(zip(asked, tables, strict=True))
            for span, row in sorted(table.items())
            for k, name in enumerate(names)
            if (value := row.get(name)) is not None
        ]
        # A processor without units shares nothing, so it counts as a unit of its own.
        occupied = [sorted(p.units) or [p.name] for p in processors]
        units = sorted({unit for names in occupied for unit in names})
        found = cls(
            models=tuple(model for model, _, _ in asked),
            amounts=np.array([amount for _, _, amount in asked], dtype=np.float64),
            processors=names,
            units=tuple(units),
            occupies=tuple(tuple(units.index(unit) for unit in of) for of in occupied),
            edges=tuple(edge for edge, _ in runnable),
            seconds=np.array([value for _, value in runnable], dtype=np.float64),
            steps=steps,
        )
        found._require_runnable()
        return found

    @property
    def proportions(self) -> npt.NDArray[np.float64]:
        """The amounts divided by their sum."""
        total: float = self.amounts.sum()
        return self.amounts / total

    @property
    def fastest_s(self) -> npt.NDArray[np.float64]:
        """By model, the least time from its start to its end; infinite if it cannot be reached."""
        reached = [np.array([0.0] + [np.inf] * steps) for steps in self.steps]
        edges = zip(self.edges, self.seconds, strict=True)
        for (m, _, (first, last)), seconds in sorted(edges, key=lambda edge: edge[0].span):
            reached[m][last + 1] = min(reached[m][last + 1], reached[m][first] + seconds)
        return np.array([times[-1] for times in reached])

    @property
    def starts(self) -> npt.NDArray[np.intp]:
        """By model, the row of `flow` that stands for its start."""
        return np.cumsum([0, *self.steps[:-1]])

    def flow(self) -> Matrix:
        """Boundaries of all models x edges: 1 where the edge leaves it, -1 where it arrives."""
        starts = self.starts
        leaves = [(starts[m] + span.first, e) for e, (m, _, span) in enumerate(self.edges)]
        arrives = [
            (starts[m] + span.last + 1, e)
            for e, (m, _, span) in enumerate(self.edges)
            if span.last + 1 < self.steps[m]
        ]
        rows = sum(self.steps)
        return self._matrix(leaves, rows) - self._matrix(arrives, rows)

    def asked(self, amounts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """By boundary, what flows out and not in: the amounts at the starts of the models."""
        rows = np.zeros(sum(self.steps))
        rows[self.starts] = amounts
        return rows

    def by_unit(self) -> Matrix:
        """Units x edges: 1 where the edge's processor occupies that unit."""
        cells = [(u, e) for e, (_, k, _) in enumerate(self.edges) for u in self.occupies[k]]
        return self._matrix(cells, len(self.units))

    def limited_to(self, kept: Sequence[int]) -> Capacity:
        """Return the same with these edges only, by position."""
        edges = tuple(self.edges[e] for e in kept)
        return dataclasses.replace(self, edges=edges, seconds=self.seconds[list(kept)])

    def _require_runnable(self) -> None:
        for model, fastest_s in zip(self.models, self.fastest_s, strict=True):
            if fastest_s == np.inf:
                listed = ", ".join(self.processors) or "none"
                raise ConfigurationError(
                    f"no processor runs model {model!r} (processors: {listed}); "
                    "profile it on one of them or take it out of the mix"
                )

    def _matrix(self, cells: Sequence[tuple[int, int]], rows: int) -> Matrix:
        matrix = np.zeros((rows, len(self.edges)))
        for row, edge in cells:
            matrix[row, edge] = 1.0
        return matrix


def _asked(amounts: Mapping[str, float]) -> dict[str, float]:
    for model, amount in amounts.items():
        if not (math.isfinite(amount) and amount >= 0):
            raise ConfigurationError(
                f"model {model!r} has the amount {amount} in the mix; "
                "it must be finite and not negative"
            )
    asked = {model: float(amount) for model, amount in amounts.items() if amount > 0}
    if not asked:
        raise ConfigurationError("the mix asks for no model; give at least one positive amount")
    return asked


def _shares(shape_counts: Mapping[int, float] | None) -> dict[int, float]:
    """Return the share of each class of sizes in the requests of a model."""
    if not shape_counts:
        return {0: 1.0}
    total = sum(shape_counts.values())
    return {shape: count / total for shape, count in shape_counts.items() if count > 0}


def _spans(seconds: Seconds, model: str, batch: int, shape: int, together: int) -> _Table:
    """Return the seconds of one request by span and processor."""
    if not isinstance(seconds, Profile):
        return {Span(): dict(seconds.get(model, {}))}
    found: _Table = {}
    for key, _ in seconds:
        if key.model == model and key.processor not in found.setdefault(key.span, {}):
            found[key.span][key.processor] = _request_s(
                seconds, key._replace(batch=batch, shape=shape), together
            )
    return found


def _side_by_side(tables: Sequence[_Table]) -> _Table:
    """Return the ways of several variants as those of one model.

    They share the start and the end. The inner boundaries of each are numbered after those of the
    one before: a request never changes from one variant to another.
    """
    if len(tables) == 1:
        return tables[0]
    steps = [max((span.last + 1 for span in table), default=1) for table in tables]
    end = 1 + sum(count - 1 for count in steps)
    found: _Table = {}
    before = 0
    for table, count in zip(tables, steps, strict=True):
        for (first, last), row in table.items():
            begin = first + before if first else 0
            until = last + 1 + before if last + 1 < count else end
            known = found.setdefault(Span(begin, until - 1), {})
            for name, value in row.items():
                known[name] = min(value, known.get(name, math.inf))
        before += count - 1
    return found


def _share_fused(
    seconds: Seconds,
    asked: Sequence[tuple[str, int, float]],
    tables: Sequence[dict[Span, dict[str, float]]],
    batches: Mapping[str, int],
    fused: FusedModels,
) -> None:
    """Let requests cost no more than their share in a fused run; changes the tables."""
    if not isinstance(seconds, Profile):
        return
    models = {model for model, _, _ in asked}
    for name, members in fused.items():
        served = len(models.intersection(members))
        for key, _ in seconds.restricted([name]):
            for (model, shape, _), table in zip(asked, tables, strict=True):
                if model not in members or key.processor not in table.get(Span(), {}):
                    continue
                batch = batches.get(model, 1)
                value = seconds.expected_s(name, key.processor, batch=batch, shape=shape)
                assert value is not None  # it has an entry
                row = table[Span()]
                row[key.processor] = min(row[key.processor], value / served)


def _request_s(profile: Profile, key: ProfileKey, together: int) -> float:
    """Return the share of one request in the cheapest execution that may serve it.

    Between two measured batches the seconds are linear, so their share is least at one of them.
    """
    model, processor, samples, span, shape = key
    batches = {samples, max(samples, together)}
    batches |= {k.batch for k, _ in profile if k.model == model and samples <= k.batch <= together}
    found = math.inf
    for batch in batches:
        value = profile.expected_s(model, processor, batch=batch, span=span, shape=shape)
        assert value is not None  # it has an entry
        found = min(found, value * samples / batch)
    return found


def _checked(value: float, model: str, processor: str) -> float:
    if not (math.isfinite(value) and value > 0):
        raise ConfigurationError(
            f"model {model!r} takes {value} s on processor {processor!r}; "
            "a bound needs times that are finite and positive"
        )
    return value
