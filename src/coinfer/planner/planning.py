"""Planning: what the passes of one plan share beside the plan. Decides nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from coinfer.backends.base import Tensors
from coinfer.graph.cut_model import CutModel
from coinfer.machine.variant_use import Use
from coinfer.model import Model
from coinfer.plan.variant import GraphFile, Kind
from coinfer.planner.wishes import Wishes
from coinfer.profiling import Profiler, Skip

__all__ = ["PlannedVariant", "Planning"]


class PlannedVariant(NamedTuple):
    """A cheaper variant while it is planned as a model of its own.

    Attributes:
        model: The model beside which it stands.
        kind: Which one it is.
        use: When it is to serve.
        error: How far its outputs are off.
        max_error: How far they may be.
        graph: Its file.
    """

    model: str
    kind: Kind
    use: Use
    error: float
    max_error: float
    graph: GraphFile


@dataclass(slots=True, kw_only=True)
class Planning:
    """The models, the wishes, and the profiler that measures for all passes.

    Attributes:
        models: By name, whole.
        wishes: What is wanted.
        profiler: Measures, within its budget.
        samples: What each model is measured with.
        guessed: Sizes of open dimensions that were guessed, by model.
        cut_models: The models that are cut, with their spans: those that were given so, and those
            that the partition pass has cut.
        fused: The fused variants that are in the plan, by name.
        unmeasured: Models that run at no sizes that were guessed; nothing can be measured of them.
        skips: Why a processor does not run a model, as far as was found out.
        random: Models of which the samples are random.
        variants: Of `models`, those that are variants of others, by name.
        spoiling: By model, the processors where NaN or infinity come out otherwise.
    """

    models: Mapping[str, Model]
    wishes: Wishes
    profiler: Profiler
    samples: dict[str, Sequence[Tensors]]
    guessed: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    cut_models: dict[str, CutModel] = field(default_factory=dict)
    fused: dict[str, Model] = field(default_factory=dict)
    unmeasured: set[str] = field(default_factory=set)
    skips: list[Skip] = field(default_factory=list)
    random: frozenset[str] = frozenset()
    variants: dict[str, PlannedVariant] = field(default_factory=dict)
    spoiling: dict[str, list[str]] = field(default_factory=dict)

    @property
    def whole(self) -> list[str]:
        """Names of the models that run whole."""
        cut = self.cut_models.keys() | self.wishes.cuts.keys()
        return [name for name in self.models if name not in cut]

    @property
    def loads(self) -> dict[str, Model | CutModel]:
        """What an engine loads, by name."""
        return {**self.models, **self.cut_models, **self.fused}
