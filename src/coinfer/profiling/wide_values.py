"""Wide values: the integers of a model that pass 32 bits, found with large inputs."""

from __future__ import annotations

from contextlib import closing

from coinfer.backends.base import Tensor, Tensors
from coinfer.backends.patience import HangError
from coinfer.errors import BackendError
from coinfer.machine.processor import Processor
from coinfer.model import Model
from coinfer.profiling.context import ProfilingContext
from coinfer.profiling.number_width import narrows
from coinfer.profiling.probe_inputs import large

__all__ = ["wide_values"]


def wide_values(
    context: ProfilingContext, model: Model, processor: Processor, sample: Tensors
) -> frozenset[str]:
    """Return the integers that pass 32 bits where inputs are as large as the model takes.

    Inputs are among them, if they enter arithmetic.

    A model takes what it runs with: a position in a table is no larger than the table.

    Args:
        context: Loads the model.
        model: The whole model.
        processor: Where its outputs count as right.
        sample: Inputs of the model.
    """
    from coinfer.graph.exposed import exposed  # needs the heavy libraries
    from coinfer.graph.wide_numbers import WideNumbers

    numbers = WideNumbers.of(model.graph)
    found = frozenset(numbers.constants)
    if not numbers.results:
        return found
    if narrows(context, processor, "int64"):  # it shows none, and may crash beyond a table
        return frozenset(numbers.results)
    try:
        session = context.patient(exposed(model, numbers.results), processor)
    except BackendError:
        return frozenset(numbers.results)  # nobody can tell
    with closing(session):
        for feed in large(sample, numbers.inputs, model.integer_bounds()):
            try:
                outputs = session.run(feed)
            except HangError:
                return frozenset(numbers.results)
            except Exception:  # noqa: BLE001 - a session is foreign code; too large for it
                continue
            values = {**feed, **outputs}
            names = (*numbers.inputs, *numbers.results)
            return found | {name for name in names if _passes(values[name])}
    return found


def _passes(array: Tensor) -> bool:
    from coinfer.graph.wide_numbers import MOST_32_BITS

    return (
        bool(((array >= MOST_32_BITS) | (array < -MOST_32_BITS - 1)).any()) if array.size else False
    )
