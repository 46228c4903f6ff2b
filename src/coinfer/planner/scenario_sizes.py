"""Scenario sizes: settle the sizes of open dimensions that a scenario leaves to be said elsewhere.

Rule: what the command line names goes first, then what the scenario states, then a guess or what
the plan was measured at.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fractions import Fraction

from coinfer.errors import UnknownNameError
from coinfer.workload.dims_spec import SizeChoice
from coinfer.workload.input_spec import RandomInputs
from coinfer.workload.scenario import ModelSpec, Scenario

__all__ = ["with_sizes"]


def with_sizes(
    scenario: Scenario,
    dims: Mapping[str, int],
    open_dims: Mapping[str, Collection[str]],
    otherwise: Mapping[str, Mapping[str, int]],
) -> Scenario:
    """Return the scenario with a size for every open dimension of models with random inputs.

    Args:
        scenario: The scenario.
        dims: Sizes that the command line names, for all models that have such a dimension.
        open_dims: Names of the open dimensions, by model.
        otherwise: Sizes by model for those that nobody names.

    Raises:
        UnknownNameError: no model has a dimension that the command line names.
    """
    for name in dims:
        known = {each for names in open_dims.values() for each in names}
        if name not in known:
            raise UnknownNameError.of("open dimension", name, sorted(known))
    specs = {
        name: _settled(
            spec,
            {dim: size for dim, size in dims.items() if dim in open_dims.get(name, ())},
            otherwise.get(name, {}),
        )
        for name, spec in scenario.models.items()
    }
    return scenario.model_copy(update={"models": specs})


def _settled(spec: ModelSpec, named: Mapping[str, int], rest: Mapping[str, int]) -> ModelSpec:
    if not isinstance(spec.inputs, RandomInputs) or not (named or rest):
        return spec
    stated = spec.inputs.dims or (SizeChoice({}, Fraction(1)),)
    dims = tuple(choice._replace(sizes={**rest, **choice.sizes, **named}) for choice in stated)
    inputs = spec.inputs.model_copy(update={"dims": dims})
    return spec.model_copy(update={"inputs": inputs})
