"""Task: one thing to measure, a model on a processor at a batch size. A value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    """

    model: str
    processor: Processor
    batch: int

    @property
    def key(self) -> ProfileKey:
        """Where a profile has it."""
        return ProfileKey(self.model, self.processor.name, self.batch)

    def __str__(self) -> str:
        """Name model and processor, as messages do."""
        return f"model {self.model!r} on processor {self.processor.name!r}"


def tasks_of(
    models: Mapping[str, Model], processors: Sequence[Processor], batches: Sequence[int]
) -> Iterator[Task]:
    """Yield what there is to measure; a model without a symbolic batch at batch 1 only."""
    for name, model in models.items():
        sizes = tuple(batches) if model.batch_symbol is not None else (1,)
        for processor in processors:
            for batch in sizes:
                yield Task(name, processor, batch)


def candidates(tasks: Sequence[Task]) -> Iterator[tuple[int, list[Task]]]:
    """Yield the tasks of one model and batch together, after the number of tasks before them.

    >>> a, b = (Processor(name=name, backend="null", units=frozenset({name})) for name in "ab")
    >>> tasks = [Task("m", a, 1), Task("m", a, 8), Task("m", b, 1)]
    >>> [(done, [task.processor.name for task in group]) for done, group in candidates(tasks)]
    [(0, ['a', 'b']), (2, ['a'])]
    """
    groups: dict[tuple[str, int], list[Task]] = {}
    for task in tasks:
        groups.setdefault((task.model, task.batch), []).append(task)
    done = 0
    for group in groups.values():
        yield done, group
        done += len(group)
