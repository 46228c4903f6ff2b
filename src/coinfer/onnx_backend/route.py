"""Route: one way through a model, drawn at random. Compiles nothing and measures nothing."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from coinfer.backends.base import Backend
from coinfer.errors import BackendError
from coinfer.graph.cut_model import CutModel
from coinfer.graph.extract import pieces_of
from coinfer.graph.operators import Operators
from coinfer.graph.partition import partition_at
from coinfer.graph.partition_options import Mode
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.machine.span import Span
from coinfer.model import Model
from coinfer.profiling.support import find_support

__all__ = ["Route"]

_NOMINAL = Measurement(seconds=(1e-3,))
"""Each part can run on one processor only, so its expected time decides nothing."""

_Support = Mapping[str, frozenset[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One way through a model: its parts, and one processor for each.

    Attributes:
        cut: The model, its parts, and made-up times that leave no other way.
        processors: All processors.
    """

    cut: CutModel
    processors: tuple[Processor, ...]

    @property
    def steps(self) -> tuple[tuple[Span, str], ...]:
        """What runs where, in order."""
        return tuple(sorted((key.span, key.processor) for key, _ in self.cut.profile))

    @classmethod
    def whole(cls, model: Model, processor: Processor) -> Self:
        """Run all of a model on one processor."""
        profile = Profile({ProfileKey(model.name, processor.name): _NOMINAL})
        return cls(cut=CutModel.uncut(model, profile), processors=(processor,))

    @classmethod
    def drawn(
        cls,
        model: Model,
        processors: Sequence[Processor],
        backends: Mapping[str, Backend],
        *,
        cuts: int,
        seed: int,
    ) -> Self:
        """Draw where to cut, and who runs each part.

        Args:
            model: The model.
            processors: Those to draw from.
            backends: Backends by name; they are asked what each processor supports.
            cuts: Number of random cuts; all places where the model can be cut if these are fewer.
                What no processor supports together is cut apart too.
            seed: Equal seeds draw the same.

        Raises:
            BackendError: no processor supports some operator.
        """
        generator = random.Random(seed)
        operators = Operators.of(model.graph)
        found = find_support(model, processors, backends, operators=operators)
        places = range(1, len(operators.groups))
        drawn = set(generator.sample(places, min(cuts, len(places))))
        forced = _forced_cuts(model, operators, found.operators, found.problems.values())
        partition = partition_at(
            model, drawn | forced, found.operators, mode=Mode.UNIT, operators=operators
        )
        order = [processor.name for processor in processors]
        entries = {}
        for at, unit in enumerate(partition.units):
            able = [name for name in order if name in unit.processors]
            entries[ProfileKey(model.name, generator.choice(able), 1, Span(at, at))] = _NOMINAL
        return cls(
            cut=CutModel(
                model=model,
                units=len(partition.units),
                pieces=pieces_of(model, partition, partition.spans),
                profile=Profile(entries),
            ),
            processors=tuple(processors),
        )


def _forced_cuts(
    model: Model, operators: Operators, support: _Support, problems: Iterable[str]
) -> set[int]:
    """Return the places before which no processor can go on with what it has begun."""
    cuts: set[int] = set()
    able = set(support)
    for at, members in enumerate(operators.groups):
        here = {name for name, known in support.items() if known.issuperset(members)}
        if not here:
            reasons = "; ".join(dict.fromkeys(problems))
            raise BackendError(
                f"model {model.name!r}: none of {', '.join(support)} runs operator "
                f"{operators[members[0]].name!r} ({operators[members[0]].op_type})"
                f"{f': {reasons}' if reasons else ''}; add a processor that does"
            )
        if not able & here:
            cuts.add(at)
            able = here
        able &= here
    return cuts
