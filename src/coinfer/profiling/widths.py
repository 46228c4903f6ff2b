"""Widths: which widths of a series of processors are measured, and what the others take.

Processors of a series differ in how many cores they use and in nothing else. Of four widths or
more the narrowest, the widest and one in the middle are measured; between them time is taken to be
linear in 1 / width, as Amdahl's law has it. What is so expected is marked, and learnt while
running.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from coinfer.machine.profile import Measurement
from coinfer.machine.scaling import over_widths
from coinfer.profiling.task import Task

__all__ = ["between", "points"]

_FEWEST = 4
"""Widths of a series of which some are not measured."""


def points(tasks: Mapping[str, Task]) -> tuple[dict[str, Task], dict[str, Task]]:
    """Split tasks of one model into those to measure, and those to be told from them.

    Args:
        tasks: By identity; of processors that are alike there is one.
    """
    series: dict[tuple[object, ...], dict[int, list[str]]] = {}
    for twin, task in tasks.items():
        widths = series.setdefault(_series(task), {})
        widths.setdefault(task.processor.threads, []).append(twin)
    left: set[str] = set()
    for widths in series.values():
        ordered = sorted(widths)
        if len(ordered) >= _FEWEST:
            measured = {ordered[0], ordered[len(ordered) // 2], ordered[-1]}
            left.update(t for width in ordered if width not in measured for t in widths[width])
    return (
        {twin: task for twin, task in tasks.items() if twin not in left},
        {twin: task for twin, task in tasks.items() if twin in left},
    )


def between(task: Task, known: Iterable[tuple[Task, Measurement]]) -> Measurement | None:
    """Return what a task is expected to measure by others of its series.

    None if there is no measured width on both sides.
    """
    width = task.processor.threads
    series = _series(task)
    found = {
        other.processor.threads: measurement
        for other, measurement in known
        if _series(other) == series and not (measurement.estimated or measurement.interpolated)
    }
    narrower, wider = [w for w in found if w < width], [w for w in found if w > width]
    if not narrower or not wider:
        return None
    mean_s = over_widths({w: measurement.mean_s for w, measurement in found.items()}, width)
    near = found[min(wider)], found[max(narrower)]
    errors = [each.error for each in near if each.error is not None]
    return Measurement(
        seconds=(mean_s,),
        load_s=near[0].load_s,
        resident_bytes=near[0].resident_bytes,
        run_bytes=near[0].run_bytes,
        error=max(errors, default=None),
        interpolated=True,
    )


def _series(task: Task) -> tuple[object, ...]:
    """What all processors of a series have in common, with the size of the samples."""
    p = task.processor
    options = tuple(sorted(p.options.items()))
    declared = (p.supported_ops, p.unsupported_ops)
    kind = (p.backend, p.device, p.precision, p.spread, bool(p.cores), options, declared)
    return (task.model, task.batch, task.shape, *kind)
