"""Request shapes: of which class of sizes the requests of a scenario are. Opens no model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from coinfer.plan.work import Work
from coinfer.workload.scenario import Scenario
from coinfer.workload.size_rotation import size_rotation

__all__ = ["NO_WORKS", "request_shapes", "request_sizes", "shape_counts"]

NO_WORKS: Mapping[str, Work] = {}


def request_shapes(
    scenario: Scenario, works: Mapping[str, Work] = NO_WORKS
) -> dict[str, tuple[int, ...]]:
    """Return the classes of sizes of each model's requests: the k-th has `[k % len]`.

    Args:
        scenario: States the sizes.
        works: How work grows with sizes, by model. Of a model without, it is taken to grow with the
            product of all sizes: that is all that is known where a file describes the machine.

    Returns:
        By model; those whose requests are all of class 0 are left out.

    >>> from coinfer.workload.scenario_file import parse_scenario
    >>> request_shapes(parse_scenario('''
    ... models: {net: {source: net.onnx, dims: {width: 100}}, plain: plain.onnx}
    ... arrivals: {net: {periodic: 10/s}, plain: {periodic: 10/s}}
    ... '''), {"net": Work({}, {("width",): 1.0}, base=50.0)})
    {'net': (4,)}
    """
    found = {}
    for name, spec in scenario.models.items():
        rotation = size_rotation(spec, name, scenario.seed)
        work = works.get(name)
        if work is None and rotation:
            work = Work({}, {tuple(rotation[0]): 1.0})
            base = min(map(work.at, rotation)) or 1.0
            work = Work({}, work.terms, base, tuple(spec.batching.pad))
        if work is not None:
            shapes = tuple(map(work.size_class, rotation))
            if any(shapes):
                found[name] = shapes
    return found


def request_sizes(
    scenario: Scenario, works: Mapping[str, Work] = NO_WORKS
) -> dict[str, tuple[int, ...]]:
    """Return numbers of the exact sizes of each model's requests: the k-th has `[k % len]`.

    Those whose requests are all of the same sizes are left out, but for those along which they are
    padded.
    """
    found = {}
    for name, spec in scenario.models.items():
        numbers: dict[tuple[tuple[str, int], ...], int] = {}
        rotation = size_rotation(spec, name, scenario.seed)
        padded = tuple(spec.batching.pad) if name not in works else works[name].padded
        fixed = [tuple((k, v) for k, v in each.items() if k not in padded) for each in rotation]
        sizes = [numbers.setdefault(each, len(numbers)) for each in fixed]
        if len(numbers) > 1:
            found[name] = tuple(sizes)
    return found


def shape_counts(
    scenario: Scenario, works: Mapping[str, Work] = NO_WORKS
) -> dict[str, dict[int, float]]:
    """Return how often the requests of each model are of which class of sizes.

    Arguments and what is left out are those of `request_shapes`.
    """
    return {
        name: {shape: float(count) for shape, count in Counter(shapes).items()}
        for name, shapes in request_shapes(scenario, works).items()
    }
