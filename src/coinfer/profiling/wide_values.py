"""Wide values: the integers of a model that pass 32 bits, found with large inputs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

from coinfer.backends.base import Backend, Tensor, Tensors
from coinfer.errors import BackendError
from coinfer.graph.exposed import exposed
from coinfer.graph.wide_numbers import MOST_32_BITS, WideNumbers
from coinfer.machine.processor import Processor
from coinfer.model import Model
from coinfer.profiling.context import ProfilingContext
from coinfer.profiling.measure import Effort
from coinfer.profiling.probe_inputs import large
from coinfer.profiling.reference import REFERENCE, reference_backends

__all__ = ["reference_wide_values", "wide_values"]


def wide_values(
    context: ProfilingContext, model: Model, processor: Processor, sample: Tensors
) -> frozenset[str]:
    """Return the 64-bit integers that pass 32 bits with inputs as large as the model takes.

    A model takes what it runs with: a position in a table is no larger than the table.

    Args:
        context: Loads the model.
        model: The whole model.
        processor: Where its outputs count as right.
        sample: Inputs of the model.
    """
    numbers = WideNumbers.of(model.graph)
    found = frozenset(numbers.constants)
    others = [name for name in numbers.results if name not in found]
    if not others:
        return found
    try:
        session, _ = context.load(exposed(model, others), processor)
    except BackendError:
        return frozenset(numbers.results)  # nobody can tell
    with closing(session):
        for feed in large(sample, numbers.inputs, model.integer_bounds()):
            try:
                outputs = session.run(feed)
            except Exception:  # noqa: BLE001 - a session is foreign code; too large for it
                continue
            return found | {name for name in others if _passes(outputs[name])}
    return found


def reference_wide_values(
    model: Model, sample: Tensors, backends: Mapping[str, Backend]
) -> frozenset[str]:
    """Return the wide values as the reference computes them; without it, all that may be wide.

    Args:
        model: The whole model.
        sample: Inputs of it.
        backends: Backends by name, for those that are not to be looked up.
    """
    results = frozenset(WideNumbers.of(model.graph).results)
    if not results:
        return results
    found = reference_backends(backends)
    if REFERENCE.backend not in found:
        return results
    context = ProfilingContext(
        models={model.name: model},
        samples={model.name: {0: [sample]}},
        backends=found,
        effort=Effort(),
        cache=None,
    )
    return wide_values(context, model, REFERENCE, sample)


def _passes(array: Tensor) -> bool:
    return (
        bool(((array >= MOST_32_BITS) | (array < -MOST_32_BITS - 1)).any()) if array.size else False
    )
