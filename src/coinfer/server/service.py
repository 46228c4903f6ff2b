"""Service: what a server answers, whatever the transport. Front ends only translate it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Protocol

from coinfer import __version__
from coinfer.backends.base import Tensors
from coinfer.core.request import OnLate
from coinfer.ensembles import EnsembleDescription
from coinfer.errors import (
    ClosedError,
    ForbiddenError,
    InputError,
    NotReadyError,
    TooLargeError,
    UnknownNameError,
)
from coinfer.runtime.engine import Engine
from coinfer.server.access import Tenant
from coinfer.server.asked import Asked, asked_of
from coinfer.server.catalogue import Catalogue
from coinfer.server.checked import Checked, checked_for
from coinfer.server.early_refusal import check_in_time
from coinfer.server.ensembles import Ensembles
from coinfer.server.inference import EXPLAIN, Inference, check_wanted
from coinfer.server.request import InferRequest
from coinfer.server.served_model import ServedModel
from coinfer.server.shared_memory import IS_OFFERED, SharedMemory
from coinfer.server.status import status_of
from coinfer.server.tenant_queue import TenantQueue
from coinfer.server.watch import Watch

__all__ = ["Control", "Service"]

_DROP = OnLate.DROP

_EXTENSIONS = (
    "classification",
    "binary_tensor_data",
    "model_configuration",
    "parameters",
    "schedule_policy",
    "statistics",
)


class Control(Protocol):
    """Loads and unloads models on demand. Its methods wait, so call them beside an event loop."""

    def index(self) -> list[dict[str, str]]:
        """Return what there is: `name`, `version`, `state` (`READY`, `UNAVAILABLE`), `reason`."""
        ...

    def load(self, name: str, parameters: Mapping[str, Any]) -> None:
        """Load a model, or its newest version beside the one that serves.

        Raises:
            CoinferError: it cannot be loaded.
        """
        ...

    def unload(self, name: str) -> None:
        """Unload all versions of a model once what was asked of them is answered.

        Raises:
            UnknownNameError: it is not loaded.
        """
        ...


class Service:
    """The models of an engine behind the Open Inference Protocol. Any thread may call it.

    Before `open` it is live and not ready: a server may answer while its models are loaded.

    Args:
        name: What it calls itself.

    Attributes:
        catalogue: What is served now.
        statistics: What became of requests.
        watch: Looks on while the engine works.
        refuses_early: Whether a request is refused at once that could not be in time.
        shared_memory: The regions that clients registered; None: not offered.
        control: Loads and unloads models; None: clients may not.
        engine: Where requests run; None before `open`.
        weights: By tenant, its weight when processors are short; empty: nothing is held back, and
            requests go in the order of the engine. To be set before `open`.
        tokens: Who may ask, as the transports check it; here for what is told of them.
        tenants: Holds requests back for that; None: there are no weights.
        ensembles: Pipelines of the models, which are models to clients.

    >>> import coinfer
    >>> from coinfer.server.request import InputTensor
    >>> from coinfer.server.served_model import served
    >>> from coinfer.testing.models import tiny_linear
    >>> model = tiny_linear().model
    >>> service = Service()
    >>> with coinfer.Engine({"m": model}) as engine:
    ...     service.open(engine, [served("m", model)])
    ...     x = InputTensor("x", "FP32", model.sample_inputs()["x"])
    ...     inference = service.infer(InferRequest("m", [x], id="7"))
    ...     response = inference.response(timeout_s=None)
    >>> response.id, [(output.name, output.datatype, output.shape) for output in response.outputs]
    ('7', [('y', 'FP32', (1, 3))])
    """

    def __init__(self, name: str = "coinfer") -> None:
        self.name = name
        self.catalogue = Catalogue()
        self.watch = Watch()
        self.ensembles = Ensembles(self.catalogue, self.watch.statistics, self)
        self.statistics = self.watch.statistics
        self.shared_memory: SharedMemory | None = SharedMemory() if IS_OFFERED else None
        self.control: Control | None = None
        self.refuses_early = True
        self.engine: Engine | None = None
        self.weights: Mapping[str, float] = {}
        self.tokens: Sequence[Tenant] = ()
        self.tenants: TenantQueue | None = None
        self._closing = ""
        self._no_memory = SharedMemory()
        self._submitting: Counter[str] = Counter()
        self._taking = threading.Lock()

    def open(
        self,
        engine: Engine,
        models: list[ServedModel],
        ensembles: Iterable[EnsembleDescription] = (),
        *,
        most_waiting: int | None = None,
    ) -> None:
        """Take requests from now on: the engine has these models, and has run them once.

        Args:
            engine: Where requests run.
            models: What clients see of its models.
            ensembles: Pipelines of these.
            most_waiting: Requests that may wait, where tenants have weights; None: any number.

        Raises:
            CoinferError: an ensemble does not fit to the models.
        """
        if self.weights:
            self.tenants = TenantQueue(self.weights, engine.plan.processors, most_waiting)
            self.tenants.start()
            self.watch.tenants = self.tenants.observe
        engine.attach(self.watch)
        for model in models:
            self.catalogue.add(model)
        self.ensembles.add(ensembles)
        self.engine = engine

    def close(self, reason: str = "the server is stopping") -> None:
        """Take no more requests; what was taken is answered. The engine is the caller's to stop."""
        self._closing = self._closing or reason

    # what it is

    @property
    def is_live(self) -> bool:
        """Whether it answers at all: an engine that broke down does not come back."""
        return self.engine is None or self.engine.fault is None

    @property
    def is_ready(self) -> bool:
        """Whether all that is required is loaded and warm, and requests are taken."""
        return self.engine is not None and not self._closing and self.is_live

    def metadata(self) -> dict[str, Any]:
        """Return the metadata of the server; its extensions are those that are offered."""
        extensions = list(_EXTENSIONS)
        extensions += ["system_shared_memory"] if self.shared_memory is not None else []
        extensions += ["model_repository"] if self.control is not None else []
        return {"name": self.name, "version": __version__, "extensions": sorted(extensions)}

    def is_model_ready(self, name: str, version: str = "") -> bool:
        """Tell whether requests to a model are taken.

        Raises:
            UnknownNameError: it is not served.
        """
        return self.ensembles.is_ready(self.catalogue.find(name, version)) and self.is_ready

    def model_metadata(self, name: str, version: str = "") -> dict[str, Any]:
        """Return the metadata of a model.

        Raises:
            UnknownNameError: it is not served.
        """
        found = self.catalogue.find(name, version)
        return found.metadata([version] if version else self.catalogue.versions(name))

    def model_config(self, name: str, version: str = "") -> dict[str, Any]:
        """Return the configuration of a model: Triton's `ModelConfig` as JSON.

        Raises:
            UnknownNameError: it is not served.
        """
        return self.catalogue.find(name, version).configuration()

    def model_statistics(self, name: str = "", version: str = "") -> dict[str, Any]:
        """Return what became of the requests of a model, or of all.

        Raises:
            UnknownNameError: it is not served.
        """
        if name:
            versions = [version] if version else self.catalogue.versions(name)
            models = [self.catalogue.find(name, each) for each in versions]
        else:
            models = list(self.catalogue)
        return {
            "model_stats": [
                {
                    "name": model.name,
                    "version": model.version,
                    **self.statistics.models[model.engine_name].to_json(),
                }
                for model in models
            ]
        }

    def held(self) -> Mapping[str, int]:
        """Return how many requests wait for their tenant's turn, by engine name; 0 of others."""
        return Counter[str]() if self.tenants is None else self.tenants.held_by_model()

    # models on demand; these methods wait

    def repository_index(self, *, only_ready: bool = False) -> list[dict[str, str]]:
        """Return which models there are, and which of them are ready."""
        if self.control is not None:
            found = self.control.index()
        else:
            found = [
                {"name": m.name, "version": m.version, "state": "READY", "reason": ""}
                for m in self.catalogue
            ]
        return [each for each in found if each["state"] == "READY" or not only_ready]

    def load_model(self, name: str, parameters: Mapping[str, Any]) -> None:
        """Load a model, or its newest version.

        Raises:
            ForbiddenError: clients may not, or it is an ensemble.
            CoinferError: it cannot be loaded.
        """
        control = self._controlled()
        self.ensembles.check_is_none(name)
        control.load(name, parameters)

    def unload_model(self, name: str) -> None:
        """Unload a model; what was asked of it before is answered.

        Raises:
            ForbiddenError: clients may not, or it is an ensemble.
            UnknownNameError: it is not loaded.
        """
        control = self._controlled()
        self.ensembles.check_is_none(name)
        control.unload(name)

    def _controlled(self) -> Control:
        if self.control is None:
            raise ForbiddenError(
                "models are not loaded or unloaded by clients here; start the server with "
                "--model-control to allow it"
            )
        return self.control

    # requests

    def infer(
        self, request: InferRequest, *, deadline_s: float | None = None, tenant: str = ""
    ) -> Inference:
        """Hand a request to the engine, now or when it is its tenant's turn; returns at once.

        Args:
            request: What is asked.
            deadline_s: Seconds that the transport leaves for it; None: any. A `timeout` among the
                parameters counts too, and the sooner of both.
            tenant: Who asks; empty: nobody in particular.

        Raises:
            CoinferError: it is refused: `status_of` says what to answer.
        """
        engine, memory = self._taken(), self.shared_memory or self._no_memory
        served = self._lease(request.model, request.version)
        is_leased, explain = True, None
        try:
            form = request.form
            checked = None if form is None or deadline_s is not None else checked_for(form, served)
            if checked is None:
                checked = _checked(request, served, memory, deadline_s)
            until_s, priority, on_late = checked.asked
            if until_s is not None and on_late is _DROP:
                self._check_in_time(served, until_s, priority, tenant)
            arrays = {name: array for name, _, array in request.inputs}
            name = served.engine_name
            is_plain = self.ensembles.of(served) is None and not request.parameters.get(EXPLAIN)
            if is_plain and self.tenants is None:  # nearly always
                future: Future[Any] = engine.submit(
                    name, arrays, deadline_s=until_s, priority=priority, on_late=on_late
                )
            else:
                submit, explain = self._submitter(engine, request, arrays, checked)
                if self.tenants is not None:
                    submit = self._in_turn(self.tenants, tenant, served, submit, checked.asked)
                    is_leased = False  # until the engine has it
                future = submit()
        except Exception as error:
            status = status_of(error)
            self.statistics.refused(served.engine_name, status.reason, status.text)
            raise
        finally:
            if is_leased:
                self._release(served)
        return Inference(future, request, checked, memory, explain)

    def submit(self, name: str, inputs: Tensors, **terms: Any) -> Future[Any]:
        """Submit the request of a stage of an ensemble to the newest version of a model.

        Args:
            name: What clients call the model.
            inputs: As of `Engine.submit`, and so are the others.
            terms: See there.

        Raises:
            NotReadyError: it is not served now.
            CoinferError: as `Engine.submit`.
        """
        try:
            served = self._lease(name)
        except UnknownNameError as error:
            raise NotReadyError(f"model {name!r} is not served now") from error
        try:
            assert self.engine is not None  # else nobody asked an ensemble
            return self.engine.submit(served.engine_name, inputs, **terms)
        finally:
            self._release(served)

    def _submitter(
        self,
        engine: Engine,
        request: InferRequest,
        arrays: Tensors,
        checked: Checked,
    ) -> tuple[Callable[..., Future[Any]], Callable[[], str] | None]:
        """Return what submits a request that is not a plain one, and what explains it if wanted."""
        served, asked, _ = checked
        ensemble = self.ensembles.of(served)
        if ensemble is None:
            begin: Callable[..., Future[Any]] = partial(engine.submit, served.engine_name)
        else:
            begin = partial(self.ensembles.submit, ensemble, served)
        submit: Callable[..., Future[Any]] = partial(
            begin,
            arrays,
            deadline_s=asked.deadline_s,
            priority=asked.priority,
            on_late=asked.on_late,
        )
        if request.parameters.get(EXPLAIN):
            return self.watch.explaining(engine, submit)
        return submit, None

    def _in_turn(
        self,
        tenants: TenantQueue,
        tenant: str,
        served: ServedModel,
        submit: Callable[..., Future[Any]],
        asked: Asked,
    ) -> Callable[..., Future[Any]]:
        """Return what submits a request when it is its tenant's turn."""
        return partial(
            tenants.submit,
            tenant,
            served.engine_name,
            lambda due_s: submit(due_s=due_s),
            deadline_s=asked.deadline_s,
            priority=asked.priority,
            is_dropped=asked.on_late is _DROP,
            left=partial(self._release, served),
        )

    def _check_in_time(
        self, served: ServedModel, deadline_s: float, priority: int, tenant: str
    ) -> None:
        """Refuse a request at once that would only wait for its deadline to pass.

        Raises:
            RejectedError: too much waits before it; says how long it would take.
        """
        backlog, tenants = self.watch.backlog, self.tenants
        n_waiting = backlog.n_waiting + (0 if tenants is None else tenants.n_held)
        if not self.refuses_early or not n_waiting:
            return
        needed_s = backlog.wait_s(priority) + self._cost_s(served)
        if tenants is not None:
            needed_s += tenants.wait_s(tenant, served.engine_name, priority)
        check_in_time(served.name, deadline_s, needed_s, n_waiting)

    def _cost_s(self, served: ServedModel) -> float:
        """Return what a request takes of processors, of an ensemble on its longest way."""
        backlog, ensemble = self.watch.backlog, self.ensembles.of(served)
        if ensemble is None:
            return backlog.cost_s(served.engine_name)
        newest = {each.name: each.engine_name for each in self.catalogue}
        return ensemble.least_s(lambda name: backlog.cost_s(newest.get(name, "")))

    def is_submitting(self, served: ServedModel) -> bool:
        """Tell whether a request is on its way to a version of which no new ones come."""
        with self._taking:
            return self._submitting[served.engine_name] > 0

    def hasten(self, served: ServedModel) -> None:
        """Let what is held of a version go out of turn: it is to be unloaded."""
        if self.tenants is not None:
            self.tenants.hasten(served.engine_name)

    def forget(self, served: ServedModel) -> None:
        """Forget what was learned of a version that is unloaded."""
        name = served.engine_name
        if self.tenants is not None:
            self.tenants.forget(name)
        self.watch.backlog.forget(name)
        self.statistics.forget(name)
        with self._taking:
            if not self._submitting[name]:
                del self._submitting[name]

    def _taken(self) -> Engine:
        if self._closing:
            raise ClosedError(self._closing)
        if self.engine is None:
            error = NotReadyError("the server still loads its models; ask /v2/health/ready")
            error.retry_after_s = 1.0
            raise error
        return self.engine

    def _lease(self, name: str, version: str = "") -> ServedModel:
        """Find the version that answers; it is not unloaded before the engine has the request."""
        with self._taking:
            served = self.catalogue.find(name, version)
            self._submitting[served.engine_name] += 1
        return served

    def _release(self, served: ServedModel) -> None:
        with self._taking:
            self._submitting[served.engine_name] -= 1


def _checked(
    request: InferRequest, served: ServedModel, memory: SharedMemory, deadline_s: float | None
) -> Checked:
    """Check what can be checked before a request is submitted.

    Raises:
        CoinferError: it is refused.
    """
    asked = asked_of(served, request.parameters, deadline_s)
    if asked.deadline_s is None:
        asked = asked._replace(on_late=OnLate.RUN)
    names = {name for name, _, _ in request.inputs}
    if len(names) != len(request.inputs):
        raise InputError("two inputs of the request have the same name; each needs its own")
    if served.most_batch:
        _check_batch(served, request)
    seen: set[str] = set()
    is_lasting = deadline_s is None
    for wanted in request.outputs:
        check_wanted(wanted, served, memory, seen)
        is_lasting = is_lasting and "shared_memory_region" not in wanted.parameters
    checked = Checked(served, asked, {})
    if request.form is not None and is_lasting:  # else it may be otherwise the next time
        request.form.checked = checked
    return checked


def _check_batch(served: ServedModel, request: InferRequest) -> None:
    for name, _, array in request.inputs:
        if array.ndim and array.shape[0] > served.most_batch and name not in served.optional:
            raise TooLargeError(
                f"model {served.name!r}: input {name!r} has {array.shape[0]} samples; a request "
                f"has at most {served.most_batch}"
            )
