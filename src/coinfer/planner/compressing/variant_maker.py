"""Variant maker: a cheaper graph of a model, made or given, measured beside the original.

It is worth having only where it is faster than the original on some processor, in paired rounds of
which the whole 95 % interval says so, and only within the error that is allowed, on samples that
nothing was chosen with and on each kind of processor. What was made once is kept in the cache.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from coinfer.artefacts.variant_graphs import keep_variant
from coinfer.backends.base import Backend, Tensors
from coinfer.backends.registry import find_backends
from coinfer.errors import ConfigurationError
from coinfer.machine.processor import Processor, ordinary
from coinfer.model import Model, load_model
from coinfer.plan.variant import GraphFile, Kind
from coinfer.planner.compressing.against_original import contests, processor_reports
from coinfer.planner.compressing.calibration import Samples, outputs_of, split
from coinfer.planner.compressing.compression import Compression
from coinfer.planner.compressing.error import worst_error
from coinfer.planner.compressing.quantisation import Quantisation
from coinfer.planner.compressing.report import ProcessorReport
from coinfer.planner.compressing.wish import CompressionWish
from coinfer.planner.identity import identity_of
from coinfer.planner.plan_variants import require_same_interface
from coinfer.profiling import Profiler
from coinfer.profiling.fingerprints import fingerprint_of
from coinfer.profiling.identity import output_parts
from coinfer.profiling.reference import REFERENCE
from coinfer.profiling.side_by_side import Contest
from coinfer.workload.variants_spec import AUTO

__all__ = ["MadeVariant", "NoVariantError", "VariantMaker"]

_FEEDS = 8
"""So many samples are run in turns for time."""


class NoVariantError(Exception):
    """There is no variant that is worth having; the text says why."""


class MadeVariant(NamedTuple):
    """A cheaper form of a model.

    Attributes:
        graph: Its file, in the user's cache.
        error: How far its outputs are off, at most.
        why: What it gains, in half a sentence.
    """

    graph: GraphFile
    error: float
    why: str


@dataclass(slots=True, kw_only=True)
class VariantMaker:
    """Makes the variants of one model.

    Attributes:
        model: The original.
        samples: What is chosen with, and what judges.
        is_data_aware: Whether the samples are real ones.
        max_error: The error that is allowed.
        processors: All that the plan may use.
        profiler: Has the cache and the backends.
    """

    model: Model
    samples: Sequence[Tensors]
    is_data_aware: bool
    max_error: float
    processors: Sequence[Processor]
    profiler: Profiler
    kinds: list[Processor] = field(init=False)
    backends: Mapping[str, Backend] = field(init=False)
    split: Samples = field(init=False)

    def __post_init__(self) -> None:
        """Choose where to measure: one processor of each kind, the narrowest.

        Raises:
            InputError: there is only one sample.
        """
        found: dict[tuple[str, str], Processor] = {}
        for each in sorted(ordinary(self.processors), key=lambda each: each.threads):
            if each.precision == "fp32":
                found.setdefault((each.backend, each.device), each)
        self.kinds = list(found.values())
        self.backends = find_backends((*self.kinds, REFERENCE), self.profiler.backends)
        self.split = split(self.samples, self.model.name, seed=0)

    def made(self, kind: Kind, graph: str) -> MadeVariant:
        """Return a variant, made now or before.

        Args:
            kind: Which one.
            graph: Its file, or `auto`.

        Raises:
            NoVariantError: there is none, or it is not faster.
            ConfigurationError: a given one is further off than is allowed.
            ModelError: a given one cannot be used, or does not fit the model.
        """
        given = None if graph == AUTO else load_model(Path(graph), name=self.model.name)
        cache, parts = self.profiler.cache, self._parts(kind, given)
        if cache is not None and cache.reads:
            kept = cache.read(cache.path(parts), _decoded)
            if isinstance(kept, str):
                raise NoVariantError(kept)
            if kept is not None and _is_there(kept.graph):
                return kept
        try:
            found = self._measured(kind, graph, given)
        except NoVariantError as error:
            if cache is not None:
                cache.write(cache.path(parts), {"why_not": str(error)})
            raise
        if cache is not None:
            data = {**found.graph._asdict(), "error": found.error, "why": found.why}
            cache.write(cache.path(parts), data)
        return found

    def _measured(self, kind: Kind, graph: str, given: Model | None) -> MadeVariant:
        if given is None:
            model, rows = self._own(kind)
        else:
            require_same_interface(self.model, given, graph)
            model, rows = given, self._rows(given)
        feeds = self.split.held_out
        originals = outputs_of(self.model, feeds, self.backends[REFERENCE.backend])
        error = worst_error(model, feeds, originals, self.kinds, self.backends)
        if error > self.max_error:
            text = f"off by {error:.3g}, more than max_error {self.max_error:g}"
            if given is None:
                raise NoVariantError(f"on some processor it is {text}")
            raise ConfigurationError(
                f"model {self.model.name!r}: {graph} is {text}; allow more, or leave it out"
            )
        better = [row for row in rows if row.ratio.is_better]
        if not better:
            texts = ", ".join(f"{row.name}: {row.ratio}" for row in rows)
            raise NoVariantError(f"it is not surely faster ({texts})")
        gains = ", ".join(f"{row.ratio.median:.2f}x as fast on {row.name}" for row in better)
        return MadeVariant(_stored(model, kind), error, f"{gains}; off by {error:.2g} at most")

    def _own(self, kind: Kind) -> tuple[Model, Sequence[ProcessorReport]]:
        """Make a variant; return what it gains too."""
        try:
            found = self._maker(kind).done()
        except ConfigurationError as error:
            raise NoVariantError(str(error)) from error
        report = found.report
        if not report.decomposed and report.int8 is None:
            raise NoVariantError("; ".join(report.warnings) or "nothing is to be gained")
        return found.model, report.processors

    def _maker(self, kind: Kind) -> Compression | Quantisation:
        if kind is Kind.INT8:
            return Quantisation(
                model=self.model,
                limit=self.max_error,
                samples=self.split,
                processors=self.kinds,
                backends=self.backends,
                tell=self._tell,
            )
        return Compression(
            model=self.model,
            wish=CompressionWish(max_error=self.max_error),
            samples=self.split,
            is_data_aware=self.is_data_aware,
            processors=self.kinds,
            backends=self.backends,
            tell=self._tell,
        )

    def _rows(self, given: Model) -> list[ProcessorReport]:
        feeds = self.split.calibration[:_FEEDS]

        def compete(rounds: int) -> list[Contest]:
            return contests(given, self.model, feeds, self.kinds, self.backends, rounds=rounds)

        return processor_reports(self.kinds, compete)

    def _tell(self, what: str) -> None:
        if self.profiler.progress is not None:
            self.profiler.progress(0, 1, f"{self.model.name}: {what}")

    def _parts(self, kind: Kind, given: Model | None) -> dict[str, object]:
        """Return all that a variant depends on."""
        return {
            "variant": kind.value,
            "structure": fingerprint_of(self.model, self.profiler.cache).structure,
            **output_parts(self.model, self.samples),
            "given": None if given is None else given.fingerprint.full,
            "max_error": self.max_error,
            "is_data_aware": self.is_data_aware,
            "kinds": [[each.backend, each.device, each.threads] for each in self.kinds],
            "machine": identity_of(self.kinds, self.backends),
        }


def _stored(model: Model, kind: Kind) -> GraphFile:
    """Keep a graph where a plan can refer to it until it is saved."""
    try:
        path = keep_variant(model.to_bytes(), model.name, kind.value)
    except OSError as error:
        raise ConfigurationError(
            f"{error.filename or error}: {error.strerror}; the graph of a variant must be kept "
            "somewhere: name a folder for the cache in COINFER_CACHE"
        ) from error
    return GraphFile(str(path), path.stem)


def _is_there(graph: GraphFile) -> bool:
    try:
        return hashlib.sha256(Path(graph.path).read_bytes()).hexdigest() == graph.sha256
    except OSError:
        return False


def _decoded(data: Any) -> MadeVariant | str:
    if "why_not" in data:
        return str(data["why_not"])
    graph = GraphFile(str(data["path"]), str(data["sha256"]))
    return MadeVariant(graph, float(data["error"]), str(data["why"]))
