"""Size search: the minimum subgraph size that suits a model, per processor (ADMS, 2503.21109).

Small islands of supported operators may be worth a switch on one processor and not on another.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from coinfer.core.routes import HANDOVER_S
from coinfer.graph.operators import Operators
from coinfer.graph.partition import choose_partition
from coinfer.graph.partition_options import PartitionOptions
from coinfer.graph.span_choice import LEAST_GAIN, plan
from coinfer.graph.span_times import SpanTimes
from coinfer.graph.units import island_sizes
from coinfer.model import Model

__all__ = ["search_sizes"]

_AS_GOOD = 1.01
"""A larger size is taken if the model takes at most this many times the least: fewer units."""


def search_sizes(
    model: Model,
    support: Mapping[str, frozenset[int]],
    options: PartitionOptions,
    times: SpanTimes,
    operators: Operators,
) -> dict[str, int]:
    """Find the largest sizes with which a request finishes about as soon as with any.

    Processors are looked at one after the other, with what was found for those before.

    Args:
        model: The model.
        support: What each processor can run.
        options: How the model is cut otherwise.
        times: Expected seconds.
        operators: Of the model.

    Returns:
        The size per processor that has gaps.
    """
    sizes = {n: 1 for n, known in support.items() if 0 < len(known) < len(operators)}

    def seconds(tried: Mapping[str, int], step_s: float) -> float:
        wanted = dataclasses.replace(options, minimum_subgraph_size=tried)
        partition = choose_partition(model, support, wanted, operators=operators)
        return plan(times.table(partition), len(partition.units), step_s=step_s)[1]

    step_s = HANDOVER_S + LEAST_GAIN * seconds(sizes, HANDOVER_S)
    for name in sizes:
        # A size between two islands' sizes changes nothing.
        candidates = (1, *(size + 1 for size in island_sizes(operators, support[name])))
        found = {size: seconds({**sizes, name: size}, step_s) for size in candidates}
        least = min(found.values())
        sizes[name] = max(size for size, s in found.items() if s <= _AS_GOOD * least)
    return sizes
