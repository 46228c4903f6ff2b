"""Capacity: which processor can run which model, in what time, on which compute units.

The matrices that the programs in `coinfer.bound.program` are made of. Solves nothing itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from coinfer.errors import ConfigurationError
from coinfer.processor import Processor
from coinfer.profiles import Profile

__all__ = ["Capacity", "Matrix", "Seconds"]

Seconds: TypeAlias = Profile | Mapping[str, Mapping[str, float]]
"""Mean seconds per model and processor; what is missing cannot run."""

Matrix: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """Models, processors, and the pairs of both that can work together.

    Attributes:
        models: Names of the models that are asked for.
        amounts: How much is asked for of each (a weight, rate or count), all positive.
        processors: Names of the processors.
        units: Names of the compute units of all processors.
        occupies: By processor, the positions in `units` that it occupies.
        pairs: (model, processor) by position, one per pair that can run.
        seconds: Seconds per execution, one per pair.
    """

    models: tuple[str, ...]
    amounts: npt.NDArray[np.float64]
    processors: tuple[str, ...]
    units: tuple[str, ...]
    occupies: tuple[tuple[int, ...], ...]
    pairs: tuple[tuple[int, int], ...]
    seconds: npt.NDArray[np.float64]

    @classmethod
    def of(
        cls, seconds: Seconds, processors: Sequence[Processor], amounts: Mapping[str, float]
    ) -> Capacity:
        """Collect what can run where; models of amount zero and unknown processors are left out.

        Raises:
            ConfigurationError: amounts or times that make no sense, or a model that no processor
                runs.
        """
        asked = _asked(amounts)
        table = [[_seconds(seconds, model, p.name) for p in processors] for model in asked]
        for model, row in zip(asked, table, strict=True):
            if all(value is None for value in row):
                listed = ", ".join(p.name for p in processors) or "none"
                raise ConfigurationError(
                    f"no processor runs model {model!r} (processors: {listed}); "
                    "profile it on one of them or take it out of the mix"
                )
        runnable = [
            (m, k, value)
            for m, row in enumerate(table)
            for k, value in enumerate(row)
            if value is not None
        ]
        # A processor without units shares nothing: it is a unit of its own.
        occupied = [sorted(p.units) or [p.name] for p in processors]
        units = sorted({unit for names in occupied for unit in names})
        return cls(
            models=tuple(asked),
            amounts=np.array(list(asked.values()), dtype=np.float64),
            processors=tuple(p.name for p in processors),
            units=tuple(units),
            occupies=tuple(tuple(units.index(unit) for unit in names) for names in occupied),
            pairs=tuple((m, k) for m, k, _ in runnable),
            seconds=np.array([value for _, _, value in runnable], dtype=np.float64),
        )

    @property
    def proportions(self) -> npt.NDArray[np.float64]:
        """The amounts divided by their sum."""
        total: float = self.amounts.sum()
        return self.amounts / total

    @property
    def fastest_s(self) -> npt.NDArray[np.float64]:
        """By model, the time on the processor that runs it fastest."""
        fastest = np.full(len(self.models), np.inf)
        np.minimum.at(fastest, [m for m, _ in self.pairs], self.seconds)
        return fastest

    def by_model(self) -> Matrix:
        """Models x pairs: 1 where the pair is of that model."""
        return self._matrix([(m, p) for p, (m, _) in enumerate(self.pairs)], len(self.models))

    def by_processor(self) -> Matrix:
        """Processors x pairs: 1 where the pair is of that processor."""
        return self._matrix([(k, p) for p, (_, k) in enumerate(self.pairs)], len(self.processors))

    def by_unit(self) -> Matrix:
        """Units x pairs: 1 where the pair's processor occupies that unit."""
        cells = [(u, p) for p, (_, k) in enumerate(self.pairs) for u in self.occupies[k]]
        return self._matrix(cells, len(self.units))

    def limited_to(self, kept: Sequence[int]) -> Capacity:
        """Return the same with these pairs only, by position."""
        return Capacity(
            models=self.models,
            amounts=self.amounts,
            processors=self.processors,
            units=self.units,
            occupies=self.occupies,
            pairs=tuple(self.pairs[p] for p in kept),
            seconds=self.seconds[list(kept)],
        )

    def _matrix(self, cells: Sequence[tuple[int, int]], rows: int) -> Matrix:
        matrix = np.zeros((rows, len(self.pairs)))
        for row, pair in cells:
            matrix[row, pair] = 1.0
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


def _seconds(seconds: Seconds, model: str, processor: str) -> float | None:
    if isinstance(seconds, Profile):
        value = seconds.expected_s(model, processor)
    else:
        value = seconds.get(model, {}).get(processor)
    if value is not None and not (math.isfinite(value) and value > 0):
        raise ConfigurationError(
            f"model {model!r} takes {value} s on processor {processor!r}; "
            "a bound needs times that are finite and positive"
        )
    return value
