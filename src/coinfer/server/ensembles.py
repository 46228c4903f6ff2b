"""Ensembles: pipelines of served models that clients see as models of their own.

They are the owner's alone: who starts the server names their files. Their stages ask the newest
version of a model, whichever that is when they begin.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any

from coinfer.ensembles import Ensemble, EnsembleDescription, Signature
from coinfer.errors import ConfigurationError, DroppedError, ForbiddenError
from coinfer.model.datatypes import datatype_of
from coinfer.runtime import clock
from coinfer.runtime.load_generator import Submits
from coinfer.server.catalogue import Catalogue
from coinfer.server.served_model import ServedModel
from coinfer.server.statistics import Statistics
from coinfer.server.status import status_of

__all__ = ["Ensembles"]

_PLATFORM = "ensemble"


class Ensembles:
    """The ensembles of a server. They are added before requests come; then any thread reads.

    Args:
        catalogue: What is served; ensembles are added there.
        statistics: What became of requests.
        engine: Answers requests to models by the names that clients use.
    """

    def __init__(self, catalogue: Catalogue, statistics: Statistics, engine: Submits) -> None:
        self._catalogue = catalogue
        self._statistics = statistics
        self._engine = engine
        self._found: dict[str, Ensemble] = {}

    def __iter__(self) -> Iterator[Ensemble]:
        return iter(self._found.values())

    def of(self, served: ServedModel) -> Ensemble | None:
        """Return the ensemble that a model of the catalogue is; None: it is none."""
        return self._found.get(served.engine_name) if self._found else None

    def add(self, descriptions: Iterable[EnsembleDescription]) -> None:
        """Serve ensembles of the models that are served now.

        Raises:
            UnknownNameError: one names a model that is not served.
            ConfigurationError: one has the name of a model, or does not fit to the models.
        """
        models = {
            each.name: self._catalogue.find(each.name)
            for each in self._catalogue
            if each.platform != _PLATFORM
        }
        signatures = {
            name: Signature(
                inputs=model.inputs,
                outputs=model.outputs,
                optional=model.optional,
                has_batch=model.most_batch > 0,
            )
            for name, model in models.items()
        }
        for description in descriptions:
            name = description.name
            if name in self._catalogue:
                raise ConfigurationError(
                    f"{description.origin}: {name!r} is served already; give the ensemble "
                    "another name"
                )
            ensemble = Ensemble(description, self._engine, signatures)
            served = ServedModel(
                name=name,
                engine_name=f"ensemble:{name}",
                inputs=ensemble.inputs,
                outputs=ensemble.outputs,
                platform=_PLATFORM,
            )
            for spec in (*served.inputs, *served.outputs):
                datatype_of(spec.dtype)
            self._found[served.engine_name] = ensemble
            self._catalogue.add(served)

    def is_ready(self, served: ServedModel) -> bool:
        """Tell whether all models are served that a model of the catalogue needs."""
        ensemble = self.of(served)
        return ensemble is None or all(m in self._catalogue for m in ensemble.description.models)

    def submit(
        self, ensemble: Ensemble, served: ServedModel, *how: Any, **terms: Any
    ) -> Future[Any]:
        """Submit a request to an ensemble, and count what becomes of it."""
        due_s, deadline_s = terms.get("due_s"), terms.get("deadline_s")
        began_s = clock.now() if due_s is None else due_s
        until_s = math.inf if deadline_s is None else began_s + deadline_s
        future = ensemble.submit(*how, **terms)
        future.add_done_callback(partial(self._answered, served.engine_name, began_s, until_s))
        return future

    def check_is_none(self, name: str) -> None:
        """See that a name is not that of an ensemble, which clients neither load nor unload.

        Raises:
            ForbiddenError: it is.
        """
        if any(ensemble.name == name for ensemble in self):
            raise ForbiddenError(
                f"{name!r} is an ensemble, which is neither loaded nor unloaded; its models are"
            )

    def close(self) -> None:
        """Cancel what is under way, and end the threads. Again is fine."""
        for ensemble in self:
            ensemble.close(drain=False)

    def _answered(self, name: str, began_s: float, until_s: float, future: Future[Any]) -> None:
        """Count a request; called on any thread."""
        now = clock.now()
        seconds = now - began_s
        error = None if future.cancelled() else future.exception()
        if future.cancelled():
            self._statistics.ended(name, seconds, "CANCELED")
        elif error is not None:
            status = status_of(error)
            is_dropped = isinstance(error, DroppedError)
            self._statistics.ended(name, seconds, status.reason, status.text, is_dropped=is_dropped)
        else:
            self._statistics.ended(name, seconds, is_late=now > until_s)
