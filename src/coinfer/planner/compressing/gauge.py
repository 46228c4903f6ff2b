"""Gauge: measures times and errors of decomposed layers and networks. Chooses nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Self

import onnx_ir as ir

from coinfer.backends.base import Backend, Session, Tensors
from coinfer.backends.loading import load
from coinfer.graph.compressing.alone import alone, imagined_factors
from coinfer.graph.compressing.decompose import decomposed
from coinfer.graph.compressing.factor_maker import FactorMaker
from coinfer.graph.compressing.layer import WAS, Layer, Ranks
from coinfer.graph.compressing.search import Choice
from coinfer.graph.compressing.substitution import Substitution
from coinfer.machine.processor import Processor
from coinfer.metrics.paired import LEAST_ROUNDS
from coinfer.model import Model, model_from_ir
from coinfer.planner.compressing.against_original import contests
from coinfer.planner.compressing.calibration import MOST_TELLING
from coinfer.planner.compressing.error import largest_error
from coinfer.profiling.reference import REFERENCE
from coinfer.profiling.side_by_side import Contest, time_side_by_side

__all__ = ["MeasuringGauge"]

_Twin = tuple[tuple[str, Ranks], ...]
"""A choice as a key."""


class MeasuringGauge:
    """Measures one model on some processors. To be used as a context.

    Args:
        model: The original.
        bound: The same with its shapes bound.
        layers: Those that may be decomposed.
        maker: Makes their factors.
        feeds: What errors are measured with.
        processors: Where times are measured.
        backends: By name.
        heeds_error: False: errors are not measured, and are 0.
    """

    def __init__(
        self,
        model: Model,
        bound: ir.Model,
        layers: Sequence[Layer],
        maker: FactorMaker,
        feeds: Sequence[Tensors],
        processors: Sequence[Processor],
        backends: Mapping[str, Backend],
        *,
        heeds_error: bool,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._model, self._bound, self._maker = model, bound, maker
        self._layers = layers
        self._feeds = feeds[:MOST_TELLING]
        self._processors, self._backends = processors, backends
        self._heeds_error = heeds_error
        self._tell = tell
        self._stack = ExitStack()
        self._known: dict[_Twin, float] = {}
        self._ours: tuple[_Twin, Model] | None = None
        self._substitution: Substitution | None = None
        self._session: Session | None = None
        self._reference: list[Tensors] = []

    def __enter__(self) -> Self:
        """Open nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the session that was opened, if one was."""
        self._stack.close()

    def seconds(self, layer: Layer, ranks: Sequence[Ranks]) -> dict[Ranks, list[float]]:
        """Time a layer alone at these ranks, on each processor."""
        self._tell(f"times of {layer.name}")
        whole = alone(self._bound, layer)
        models = {
            each: model_from_ir(
                whole.clone()
                if each == WAS
                else decomposed(whole, {layer.key: imagined_factors(layer, each)}),
                name=f"{layer.name} at {each}",
            )
            for each in ranks
        }
        feeds = [models[WAS].sample_inputs()]
        by_processor = [
            time_side_by_side(models, feeds, each, self._backends[each.backend])
            for each in self._processors
        ]
        return {each: [seconds[each] for seconds in by_processor] for each in ranks}

    def error(self, choice: Choice) -> float:
        """Return the largest ||out - ref|| / ||ref|| over outputs and samples."""
        if not self._heeds_error:
            return 0.0
        twin = _twin(choice)
        if twin not in self._known:
            self._tell(f"error with {len(choice)} layers decomposed")
            self._open()
            assert self._substitution is not None
            assert self._session is not None
            weights = self._substitution.feed(self._maker.all_of(choice))
            outputs = [self._session.run({**feed, **weights}) for feed in self._feeds]
            self._known[twin] = largest_error(outputs, self._reference)
        return self._known[twin]

    def gain(self, choice: Choice, than: Choice) -> float:
        """Return how many times as fast the first is on the processor where it gains least."""
        self._tell(f"{len(choice)} layers decomposed against {len(than)}")
        twin = _twin(choice)
        if self._ours is None or self._ours[0] != twin:  # asked for against one after the other
            self._ours = (twin, self.built(choice))
        contests = self.contests(self._ours[1], self.built(than))
        return min(each.ratio.median for each in contests)

    def contests(self, ours: Model, theirs: Model, *, rounds: int = LEAST_ROUNDS) -> list[Contest]:
        """Let two models of the same inputs compete on each processor."""
        return contests(ours, theirs, self._feeds, self._processors, self._backends, rounds=rounds)

    def built(self, choice: Choice) -> Model:
        """Return the model with these layers decomposed."""
        if not choice:
            return self._model
        graph = decomposed(self._model.graph, self._maker.all_of(choice))
        return self._model.with_graph(graph)

    def _open(self) -> None:
        if self._session is None:
            keys = [layer.key for layer in self._layers]
            self._substitution = Substitution.of(self._model, keys)
            backend = self._backends[REFERENCE.backend]
            self._session = load(backend, self._substitution.model, REFERENCE)
            self._stack.callback(self._session.close)
            weights = self._substitution.feed({})
            self._reference = [self._session.run({**feed, **weights}) for feed in self._feeds]


def _twin(choice: Choice) -> _Twin:
    return tuple(sorted(choice.items()))
