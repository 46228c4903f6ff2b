"""Call: one call of a Python function of an ensemble, and what it returns, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from coinfer.ensembles.items import no_items, stacked
from coinfer.ensembles.naming import of_step
from coinfer.ensembles.wiring import WiredStage
from coinfer.errors import ExecutionError
from coinfer.model.specs import TensorSpec

__all__ = ["called", "of_all_items"]


def called(wired: WiredStage, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Call the function of a stage once.

    Args:
        wired: The stage.
        arguments: By name; the function gets arrays that it cannot change.

    Returns:
        What it returns, by name.

    Raises:
        CoinferError: what it raises of ours; an `ExecutionError` of anything else.
        ExecutionError: it returns something else than was said.
    """
    call, function = wired.stage.call, wired.function
    assert function is not None
    try:
        returned = function(**{name: _fixed(value) for name, value in arguments.items()})
    except Exception as error:
        raise of_step(call, error) from error
    names = wired.results.keys()
    if not isinstance(returned, Mapping) and len(names) == 1:
        returned = dict.fromkeys(names, returned)
    if not isinstance(returned, Mapping) or returned.keys() != names:
        found = (
            f"a mapping of {', '.join(map(str, returned)) or 'nothing'}"
            if isinstance(returned, Mapping)
            else f"a {type(returned).__name__}"
        )
        raise ExecutionError(f"{call} returned {found}; return a mapping of {', '.join(names)}")
    for name, spec in wired.results.items():
        if spec is not None and not _fits(spec, returned[name]):
            raise ExecutionError(
                f"{call} returned {_shown(returned[name])} as {name!r}, which is to be "
                f"{spec.layout}"
            )
    return dict(returned)


def of_all_items(wired: WiredStage, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the results of all items: arrays where it is said what they are, else lists."""
    outputs: dict[str, Any] = {}
    for name, spec in wired.outputs.items():
        if spec is None:
            outputs[name] = [result[name] for result in results]
        elif results:
            outputs[name] = stacked(name, [result[name] for result in results])
        else:
            outputs[name] = no_items(spec)
    return outputs


def _fixed(value: Any) -> Any:
    """Return an array that cannot be changed: others read it, too."""
    if not isinstance(value, np.ndarray):
        return value
    view = value.view()
    view.flags.writeable = False
    return view


def _fits(spec: TensorSpec, value: Any) -> bool:
    if not isinstance(value, np.ndarray):
        return False
    same = value.dtype == spec.dtype or (spec.dtype == object and value.dtype.kind in "US")
    return same and spec.takes_shape(value.shape)


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{list(value.shape)}"
    return f"a {type(value).__name__}"
