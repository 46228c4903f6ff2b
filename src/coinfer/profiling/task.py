"""Task: one thing to measure, a model on a processor at a batch size. A value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from coinfer.machine.processor import Processor
from coinfer.machine.profile import ProfileKey
from coinfer.model import Model

__all__ = ["Task", "candidates", "tasks_of"]


class Task(NamedTuple):
    """What one measurement is of.

    Attributes:
        model: The model's name.
        processor: Where it runs.
        batch: Samples in each run.
        shape: The class of sizes of the samples.
    """

    model: str
    processor: Processor
    batch: int
    shape: int = 0

    @property
    def key(self) -> ProfileKey:
        """Where a profile has it."""
        return ProfileKey(self.model, self.processor.name, self.batch, shape=self.shape)

    def __str__(self) -> str:
        """Name model and processor, as messages do."""
        return f"model {self.model!r} on processor {self.processor.name!r}"


def tasks_of(
    models: Mapping[str, Model],
    processors: Sequence[Processor],
    batches: Sequence[int],
    shapes: Mapping[str, Iterable[int]] = MappingProxyType({}),
) -> Iterator[Task]:
    """Yield what there is to measure; a model without a symbolic batch at batch 1 only.

    Args:
        models: By name.
        processors: Where.
        batches: Batch sizes.
        shapes: Classes of sizes by model; 0 of those not named.
    """
    for name, model in models.items():
        sizes = tuple(batches) if model.batch_symbol is not None else (1,)
        for processor in processors:
            for batch in sizes:
                for shape in shapes.get(name, (0,)):
                    yield Task(name, processor, batch, shape)


def candidates(tasks: Sequence[Task]) -> Iterator[tuple[int, list[Task]]]:
    """Yield the tasks of one model and size together, after the number of tasks before them.

    >>> a, b = (Processor(name=name, backend="null", units=frozenset({name})) for name in "ab")
    >>> tasks = [Task("m", a, 1), Task("m", a, 8), Task("m", b, 1)]
    >>> [(done, [task.processor.name for task in group]) for done, group in candidates(tasks)]
    [(0, ['a', 'b']), (2, ['a'])]
    """
    groups: dict[tuple[str, int, int], list[Task]] = {}
    for task in tasks:
        groups.setdefault((task.model, task.batch, task.shape), []).append(task)
    done = 0
    for group in groups.values():
        yield done, group
        done += len(group)
