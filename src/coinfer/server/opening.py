"""Opening: the models of a repository, a scenario or a plan, loaded into an engine and warm."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from coinfer.api import engine as planning_engine
from coinfer.api.choosing_engine import ChoosingEngine
from coinfer.backends.base import Backend
from coinfer.core.dispatcher import Limits
from coinfer.core.request import OnLate
from coinfer.errors import CoinferError, ConfigurationError
from coinfer.hardware.cgroup import memory_limit_bytes
from coinfer.model import Model, load_model
from coinfer.plan.plan import AUTO
from coinfer.planner.make_plan import whole_of
from coinfer.planner.opened_plan import open_plan
from coinfer.profiling.deployment import Progress
from coinfer.runtime.engine import Engine
from coinfer.runtime.prepared import Prepared
from coinfer.server.model_folder import ModelFolder, ModelVersion
from coinfer.server.served_model import ServedModel, served
from coinfer.workload.batch_spec import BatchSpec

__all__ = ["Opened", "open_folders", "open_prepared", "open_saved_plan", "opened_version", "warm"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An engine and its models as clients see them.

    Attributes:
        engine: The engine; whoever opened it stops it.
        models: All versions of all models.
        planner: The same engine, if it can load more models; None: it performs one plan.
        most_waiting: Requests that may wait; None: any number.
    """

    engine: ChoosingEngine
    models: list[ServedModel]
    planner: planning_engine.Engine | None = None
    most_waiting: int | None = None


def open_folders(
    folders: Iterable[ModelFolder],
    *,
    limits: Limits = Limits(),
    progress: Progress | None = None,
    memory: str | None = None,
    policy: str | None = None,
    backends: Mapping[str, Backend] | None = None,
) -> Opened:
    """Load the models of a repository: plan them, and measure what the cache does not know.

    Args:
        folders: What there is.
        limits: What the core enforces.
        progress: Called before each measurement.
        memory: Bytes for what is loaded; None: no limit.
        policy: Name of a policy; None: the default.
        backends: Backends by name, for those that are not to be looked up.

    Raises:
        CoinferError: a model cannot be used, and the message names it.
    """
    models: dict[str, Model] = {}
    batch: dict[str, BatchSpec] = {}
    described = []
    for folder in folders:
        for version in folder.versions:
            name = f"{folder.name}/{version.version}"
            model, seen = opened_version(folder, version, name)
            models[name], batch[name] = model, batch_of(folder)
            described.append(seen)
    engine = planning_engine.Engine(
        models,
        limits=limits,
        batch=batch,
        memory=memory,
        policy=policy,
        backends=backends,
        progress=progress,
    )
    warm_engine = _warmed(engine, models, is_auto=False)  # it chooses already, if it is to
    return Opened(
        engine=warm_engine, models=described, planner=engine, most_waiting=limits.max_waiting
    )


def open_prepared(ready: Prepared, *, is_auto: bool = False) -> Opened:
    """Load the models of a scenario that was prepared.

    Args:
        ready: The scenario, its plan and its models.
        is_auto: Whether the policy is chosen while it serves; it begins with that of the plan.

    Raises:
        ConfigurationError: the scenario is of a machine that a file describes.
        CoinferError: a model cannot be loaded.
    """
    if not ready.models:
        raise ConfigurationError(
            f"{ready.plan.machine.name} is described by a file and can only be simulated; leave "
            "`machine` out of the scenario to serve it here"
        )
    models = {name: whole_of(ready.models[name]) for name in ready.plan.models}
    specs = ready.scenario.models
    described = [
        served(
            name,
            model,
            deadline_s=specs[name].deadline_s,
            priority=specs[name].priority,
            on_late=specs[name].on_late,
        )
        for name, model in models.items()
    ]
    engine = ChoosingEngine(
        ready.plan,
        ready.models,
        limits=ready.scenario.limits,
        backends=ready.backends,
        memory_limit=memory_limit_bytes,
    )
    return Opened(
        engine=_warmed(engine, models, is_auto=is_auto),
        models=described,
        most_waiting=ready.scenario.limits.max_waiting,
    )


def open_saved_plan(folder: Path, *, limits: Limits = Limits(), is_auto: bool = False) -> Opened:
    """Load the models of a saved plan; nothing is measured.

    Args:
        folder: Where it was saved.
        limits: What the core enforces.
        is_auto: Whether the policy is chosen while it serves; it begins with that of the plan.

    Raises:
        CoinferError: the plan is of other files or another machine, or cannot be loaded.
    """
    planned = open_plan(folder)
    models = {name: whole_of(planned.models[name]) for name in planned.plan.models}
    described = [served(name, model) for name, model in models.items()]
    engine = ChoosingEngine(
        planned.plan, planned.models, limits=limits, memory_limit=memory_limit_bytes
    )
    return Opened(
        engine=_warmed(engine, models, is_auto=is_auto),
        models=described,
        most_waiting=limits.max_waiting,
    )


def opened_version(
    folder: ModelFolder, version: ModelVersion, engine_name: str
) -> tuple[Model, ServedModel]:
    """Open a version of a model of a repository and describe it.

    Raises:
        ModelError: its file cannot be used.
        ConfigurationError: its `config.pbtxt` says something else than the file.
    """
    model = load_model(version.file, name=engine_name)
    config, options = folder.config, folder.options
    described = served(
        folder.name,
        model,
        engine_name=engine_name,
        version=version.version,
        priority=options.priority,
        deadline_s=options.deadline,
        on_late=options.on_late,
    )
    most = options.max_batch
    if config is not None:
        config.check(model)
        most = most or config.max_batch
        if config.max_batch == 0:
            described = replace(described, most_batch=0)
        described = _scheduled(described, folder)
        labels = {
            tensor.name: _labels(folder.path, tensor.label_file)
            for tensor in config.outputs
            if tensor.label_file
        }
        described = replace(described, labels=labels)
    if most and described.most_batch:
        described = replace(described, most_batch=most)
    return model, described


def batch_of(folder: ModelFolder) -> BatchSpec:
    """Return how requests of a model share executions."""
    asked = None if folder.config is None else folder.config.batching
    if "batch" in folder.options.model_fields_set or asked is None:
        return folder.options.batch
    most = max(asked.preferred, default=folder.config.max_batch if folder.config else 0)
    return BatchSpec(max=most or "auto", max_delay=asked.max_delay_s)


def warm(engine: Engine, models: Mapping[str, Model]) -> None:
    """Run each session once, of the sizes that were planned; what cannot be run so is left out."""
    for name, model in models.items():
        sizes = engine.plan.models[name].sizes[:1] if name in engine.plan.models else ()
        try:
            engine.warm_up(name, model.sample_inputs(dims=sizes[0] if sizes else {}))
        except CoinferError as error:  # e.g. strings, of which there are no random ones
            _log.info("model %r was not warmed up: %s", name, error)


def _warmed(
    engine: ChoosingEngine, models: Mapping[str, Model], *, is_auto: bool
) -> ChoosingEngine:
    try:
        warm(engine, models)
        if is_auto:
            engine.change_policy(AUTO)
    except BaseException:
        engine.stop(drain=False, timeout_s=1.0)
        raise
    return engine


def _scheduled(described: ServedModel, folder: ModelFolder) -> ServedModel:
    """Take over what `config.pbtxt` says of priorities and deadlines."""
    asked = None if folder.config is None else folder.config.batching
    if asked is None:
        return described
    if asked.default_priority:
        described = replace(described, level=asked.default_priority)
    if asked.default_timeout_s is not None and described.deadline_s is None:
        on_late = OnLate.DROP if asked.drops_late else OnLate.RUN
        described = replace(described, deadline_s=asked.default_timeout_s, on_late=on_late)
    return described


def _labels(folder: Path, name: str) -> tuple[str, ...]:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):  # clients get to see them
        raise ConfigurationError(f"labels {name!r} are not in {folder}; put them there")
    try:
        return tuple(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"labels {path} cannot be read: {error}") from error
