"""Profiling context: what all measurements of one profiling share. Loads models, times no run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from coinfer.backends.artefact_making import prepare, prepare_all
from coinfer.backends.base import Backend, Session, Tensors, caller_cores
from coinfer.backends.loading import timed_load
from coinfer.backends.patience import closing_unless_hung, patiently
from coinfer.hardware.cores import available_cores
from coinfer.hardware.environment import cpu_name, memory_bytes
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement
from coinfer.model import Model, model_from_ir
from coinfer.plan.work import SizeClasses, Work
from coinfer.profiling.budget import Budget
from coinfer.profiling.cache import ProfileCache
from coinfer.profiling.identity import key_parts
from coinfer.profiling.measure import Effort
from coinfer.profiling.patient_sessions import PatientSession, running
from coinfer.profiling.task import Task

__all__ = ["MOST_FEEDS", "ProfilingContext", "by_class"]

MOST_CLASSES = 6
"""Classes of sizes that a model is measured at."""

MOST_FEEDS = 4
"""Sample inputs that times are measured with, in rotation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfilingContext:
    """All that the measurements of one profiling share.

    Attributes:
        models: By name.
        samples: Sample inputs by model and class of sizes, of batch 1 where the batch is symbolic.
        backends: By name.
        effort: When a measurement is good enough.
        cache: Where measurements are kept; None: nowhere.
        budget: How long measuring may take.
        expected: Seconds by model and processor, to take instead once the budget is spent.
        machine: Name of the machine's processor.
    """

    models: Mapping[str, Model]
    samples: Mapping[str, Mapping[int, Sequence[Tensors]]]
    backends: Mapping[str, Backend]
    effort: Effort
    cache: ProfileCache | None
    budget: Budget = field(default_factory=Budget)
    expected: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    machine: str = field(default_factory=lambda: cpu_name(), init=False)
    _awake: set[tuple[str, str]] = field(default_factory=set, init=False)

    def parts(self, task: Task) -> dict[str, object]:
        """Return all that a measurement depends on."""
        name, processor, batch, shape = task
        backend, samples = self.backends[processor.backend], self.samples[name][shape]
        return key_parts(name, self.models[name], processor, batch, samples, backend, self.machine)

    def recall(self, task: Task) -> Measurement | None:
        """Return what the cache has, if it was measured with at least this effort."""
        cache = self._cache(task)
        return None if cache is None else cache.get(self.parts(task), self.effort.amounts)

    def remember(self, task: Task, measurement: Measurement) -> None:
        """Keep a measurement in the cache."""
        cache = self._cache(task)
        if cache is not None:
            cache.put(self.parts(task), measurement, self.effort.amounts)

    def prepare(self, tasks: Iterable[Task]) -> None:
        """Prepare models for processors side by side, where they are loaded next."""
        wanted = [
            (self.backends[task.processor.backend], self.models[task.model], task.processor)
            for task in tasks
            if not self.models[task.model].borders
        ]
        with suppress(Exception):  # loading it will tell what is wrong
            prepare_all(wanted, most=len(available_cores()), memory=memory_bytes())

    def load(self, model: Model, processor: Processor) -> tuple[Session, float]:
        """Load a model and return the session with the seconds that it took.

        A model that is profiled whole is prepared first, since it will be loaded again and again.
        Of parts that are tried few stay, and other variants are loaded once.
        """
        backend = self.backends[processor.backend]
        is_profiled = any(model.content is each.content for each in self.models.values())
        if is_profiled and not model.borders:
            prepare(backend, model, processor)
        return timed_load(backend, model, processor)

    def patient(self, model: Model, processor: Processor) -> PatientSession:
        """Load a model to see what it computes; no run of it can hang for ever."""
        return PatientSession(self.load(model, processor)[0], running(model, processor))

    def caller_cores(self, processor: Processor) -> tuple[int, ...]:
        """Return the cores to which the engine's worker is pinned."""
        return caller_cores(self.backends[processor.backend], processor)

    def wake(self, processor: Processor) -> None:
        """Load something tiny first: what a library sets up once is not the first model's memory.

        Does nothing for a device that is awake.
        """
        device = (processor.backend, processor.device)
        if device in self._awake:
            return
        self._awake.add(device)
        from coinfer import zoo  # needs the heavy libraries

        tiny = model_from_ir(zoo.build("tiny_mlp"), name="tiny_mlp")
        with suppress(Exception):  # then the model to be measured will tell what is wrong
            session, _ = self.load(tiny, dataclasses.replace(processor, precision="fp32"))
            feed = tiny.sample_inputs()
            with closing_unless_hung(session):
                patiently(lambda: session.run(feed), f"a first run on {processor.name!r}")

    def _cache(self, task: Task) -> ProfileCache | None:
        # A backend that states no versions cannot be told from another one of the same name.
        return self.cache if self.backends[task.processor.backend].versions() else None


def by_class(feeds: Sequence[Tensors], work: Work | None) -> dict[int, list[Tensors]]:
    """Sort samples by their class of sizes, the smallest first; of many classes keep a few.

    The smallest and the largest stay, and of those between, times can be interpolated.
    """
    if work is None:
        return {0: list(feeds)}
    classes, found = SizeClasses(work), dict[int, list[Tensors]]()
    for feed in feeds:
        found.setdefault(classes(feed)[0], []).append(feed)
    ordered = sorted(found)
    last = len(ordered) - 1
    kept = {ordered[round(at * last / (MOST_CLASSES - 1))] for at in range(MOST_CLASSES)}
    return {shape: found[shape] for shape in ordered if shape in kept}
