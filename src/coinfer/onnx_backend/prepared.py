"""PreparedModel: a model on an engine of its own. Does not know how it was cut."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Self

import numpy as np
from onnx.backend.base import BackendRep, namedtupledict

from coinfer.backends.base import Tensor
from coinfer.core.dispatcher import Limits
from coinfer.errors import ConfigurationError, InputError
from coinfer.model import Model
from coinfer.onnx_backend.route import Route
from coinfer.planner.make_plan import given_plan
from coinfer.runtime.engine import Engine

__all__ = ["PreparedModel"]

_LIMITS = Limits(retries=0, hang_min_s=float("inf"))
"""Expected times are made up, so none is too long; and there is nowhere else to try."""

_PATIENCE_S = 5.0


class PreparedModel(BackendRep):  # type: ignore[misc]  # onnx has no types
    """A model on an engine of its own; made by `CoinferBackend.prepare`.

    It holds threads until it is closed or collected.

    Attributes:
        model: The model.
        route: What runs where.
    """

    def __init__(self, model: Model, route: Route) -> None:
        self.model = model
        self.route = route
        self._outputs = namedtupledict("Outputs", [spec.name for spec in model.outputs])
        unpinned = [replace(processor, cores=()) for processor in route.processors]
        planned = given_plan({model.name: route.cut}, unpinned, route.cut.profile)
        self._engine = Engine(planned.plan, planned.models, limits=_LIMITS)
        self._finalizer = weakref.finalize(self, _abandon, self._engine)
        self._finalizer.atexit = False  # its threads end with the process

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        """Compute the outputs.

        Args:
            inputs: Arrays in the order of the model's inputs, or by name; or the only array. Inputs
                with a default may be left out: all of them, if arrays come in order.
            kwargs: No option is known.

        Returns:
            The outputs in the model's order, as a named tuple.

        Raises:
            InputError: an input's number, name, dtype or shape is wrong.
            ConfigurationError: there is an option.
            ExecutionError: the run failed.
            ClosedError: it is closed.
        """
        if kwargs:
            raise ConfigurationError(f"run has no option {min(kwargs)!r}; leave it out")
        answer = self._engine.infer(self.model.name, self._by_name(inputs))
        outputs: tuple[Tensor, ...] = self._outputs(
            *(answer[spec.name] for spec in self.model.outputs)
        )
        return outputs

    def close(self) -> None:
        """End the engine; again is fine."""
        self._finalizer.detach()
        self._engine.stop(drain=False, timeout_s=_PATIENCE_S)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _by_name(self, inputs: Any) -> dict[str, Any]:
        if isinstance(inputs, Mapping):
            return dict(inputs)
        specs = self.model.inputs
        given = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
        if len(given) < len(specs):  # then the others are those that must be given
            specs = tuple(spec for spec in specs if spec.name not in self.model.defaults)
        if len(given) != len(specs):
            raise InputError(
                f"model {self.model.name!r} takes {len(specs)} inputs but got {len(given)}: "
                f"{', '.join(map(str, specs)) or 'nothing'}"
            )
        return {
            # A numpy function that yields one number yields no array of it.
            spec.name: np.asarray(array) if isinstance(array, np.generic) else array
            for spec, array in zip(specs, given, strict=True)
        }


def _abandon(engine: Engine) -> None:
    """Stop an engine that nobody can reach: whoever collects garbage must not wait for it.

    The interpreter does wait: a library must not return to one that is ending.
    """
    stop = threading.Thread(target=engine.stop, kwargs={"drain": False, "timeout_s": _PATIENCE_S})
    with suppress(RuntimeError):  # it ends already and starts no threads
        stop.start()
