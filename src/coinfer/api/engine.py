"""Engine for users: plans what it is given, and performs the plan."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from coinfer.api.choosing_engine import ChoosingEngine
from coinfer.api.wishes_by_model import Batch, Variants, batches_of, check_wishes, variants_of
from coinfer.backends import heap
from coinfer.backends.base import Backend
from coinfer.backends.patience import HangError
from coinfer.backends.registry import find_backends
from coinfer.core.dispatcher import Limits
from coinfer.core.policy import Policy, check_policy
from coinfer.errors import CoinferError, ConfigurationError, UnknownNameError
from coinfer.experiments.auto_policy import AutoPolicy, auto_policy
from coinfer.graph.cut_model import CutModel
from coinfer.graph.partition_options import PartitionOptions
from coinfer.hardware.awake import awake
from coinfer.hardware.catalogue import default_processors
from coinfer.hardware.cgroup import memory_limit_bytes
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.model import Model
from coinfer.plan.memory_spec import MemorySpec
from coinfer.plan.plan import Plan, PolicyChoice
from coinfer.planner.given_samples import SampleSource, read_samples
from coinfer.planner.make_plan import Planned, given_plan, make_plan, whole_of
from coinfer.planner.model_source import lasting_source, resolve_model
from coinfer.planner.opened_plan import open_plan
from coinfer.planner.wishes import CutWish, Wishes
from coinfer.policies import make_policy
from coinfer.profiling import Profiler, default_cache
from coinfer.profiling.budget import Budget
from coinfer.profiling.deployment import Progress
from coinfer.runtime.arguments import new_name, shown
from coinfer.runtime.engine import Observer
from coinfer.workload.agreement_spec import AgreementSpec
from coinfer.workload.fuse_spec import FuseSpec, fuse_of
from coinfer.workload.processor_spec import Preempt

__all__ = ["MEASURE_S", "Engine"]

MEASURE_S = 20.0
"""Seconds that an engine measures for at most, unless it is told otherwise."""

_Source = Model | CutModel | str | Path


class Engine(ChoosingEngine):
    """Runs models together. Threads may call any method at any time.

    Args:
        models: Models by name: what `load_model` returns, a path, `zoo:NAME`, or a cut model. Or a
            plan, or the folder that one was saved in: then nothing is measured, and processors,
            profile and partition are the plan's.
        processors: What to run on, in the order of preference; None: all that are found.
        profile: Expected times. A model runs on the processors for which it has entries. None:
            take them from the user's cache or measure them now, and leave superfluous ones out.
        policy: A policy, or the name of one; None: that of the plan, by default
            `earliest_finish`. `auto`, or an `AutoPolicy`: it begins with that one, notes the
            requests that come, and changes to the policy that simulations find best for them.
        limits: What the core enforces whatever the policy wants.
        backends: Backends by name, for those that are not to be looked up.
        pin: Pin workers and thread pools to the cores of their processors, where the system can.
        observer: Sees every step of the core.
        partition: Cut models so, where that pays, and measure the spans now or take their times
            from the cache; None: run them whole.
        keep_awake: Let the processors' cores spin at the lowest scheduling class instead of going
            idle: see `coinfer.hardware.awake`.
        samples: Inputs by model to measure with, of the sizes that will come: arrays by input name,
            several of these, an .npz file or a folder of pictures. Without, they are random, and
            what the model leaves open is guessed, which is said among the warnings.
        agreement: How near the outputs of a processor must be to those of onnxruntime in fp32 for
            a model to run there, e.g. `{"tolerance": 1e-4, "nonfinite": "strict"}`. A given profile
            or plan is taken as it is.
        preempt: Whether urgent requests preempt others on CPU cores and GPUs, if `processors` are
            left open; `auto`: where that pays (see the page on processors). Where they may, and
            without a given profile, each model runs once on each of its processors before they can
            come.
        batch: How requests of a model may share executions: `auto`, where the measured times say
            that it pays; `off`; or e.g. `{"max": 16, "max_delay": "2ms"}`. One of these for all
            models, or by model. A given plan is taken as it is; with a given profile, `auto` is
            `off`: nobody has seen whether answers change with the company.
        variants: Cheaper variants beside models, and when they serve: `when_late`, `always`, or
            e.g. `{"max_error": 0.02, "use": "when_late", "compressed": "small.onnx"}`; see
            `VariantsSpec`. One of these for all models, or by model; None: there are none. To make
            one can take minutes, which are not limited by `measure_s`; it is kept in the cache.
        fuse: Which models may be answered by one run of a fused network: `auto`, where measuring
            shows that it pays; `never`; or groups of names like `[["a", "b"], ["c", "d"]]`. With a
            given profile, `auto` is `never`: fused networks must be measured.
        memory: Bytes for what is loaded, e.g. `"2GiB"`: of the CPU cores' memory, or by name of the
            memory, `{"host": "2GiB", "CUDA:0": "8GiB"}`. What does not fit is loaded when it is
            needed, and evicted when others are. None: as a given plan says, or no limit.
        measure_s: Seconds to measure for at most. What is not measured by then is estimated from
            what was, said among the warnings, and learnt while running.
        progress: Called before each measurement with how many are done, how many there are, and
            what is measured.

    Raises:
        ConfigurationError: no processors, a model without an entry in the profile or one that
            agrees with the reference nowhere, a plan that was made for another machine or of other
            files, or `measure_s` is no number of seconds.
        BackendError: a model cannot be loaded on a processor of its profile.
        ModelError: a model's file cannot be used.

    Attributes:
        plan: What it performs.
        warnings: What was not done as asked, e.g. a processor that could not take a model.

    >>> from coinfer.testing.models import tiny_linear
    >>> model = tiny_linear().model
    >>> with Engine({"m": model}) as engine:
    ...     future = engine.submit("m", model.sample_inputs(), deadline_s=1.0)
    ...     sorted(future.result()) == [spec.name for spec in model.outputs]
    True
    """

    def __init__(
        self,
        models: Mapping[str, _Source] | Plan | str | Path,
        *,
        processors: Sequence[Processor] | None = None,
        profile: Profile | None = None,
        policy: str | Policy | AutoPolicy | None = None,
        limits: Limits = Limits(),
        backends: Mapping[str, Backend] | None = None,
        pin: bool = True,
        observer: Observer | None = None,
        partition: PartitionOptions | None = None,
        keep_awake: bool = False,
        samples: Mapping[str, SampleSource] = MappingProxyType({}),
        agreement: AgreementSpec | Mapping[str, Any] = AgreementSpec(),
        preempt: Preempt = "auto",
        batch: Batch | Mapping[str, Batch] = "auto",
        variants: Variants | Mapping[str, Variants] | None = None,
        fuse: FuseSpec | Sequence[Sequence[str]] = "auto",
        memory: str | int | Mapping[str, Any] | None = None,
        measure_s: float = MEASURE_S,
        progress: Progress | None = None,
    ) -> None:
        _check_kinds(models, limits)
        if preempt not in (True, False, "auto"):
            raise ConfigurationError(f"preempt is {preempt!r}; give True, False or 'auto'")
        auto = auto_policy(policy)
        chosen, choice = _policy_of(policy) if auto is None else (None, None)
        self._given = dict(backends or {})
        self._partition = partition
        self._agreement = AgreementSpec.of(agreement)
        self._batch, self._variants = batch, variants
        self._fuse = fuse_of(fuse)
        check_wishes(models, batch, variants, self._fuse, is_profiled=profile is not None)
        self._measure_s, self._progress = measure_s, progress
        self._memory = MemorySpec() if memory is None else MemorySpec.of(memory)
        self._preempt: Preempt = True  # what is given is taken as it is
        Budget(measure_s)  # raises at once where it is none
        if isinstance(models, Plan | str | Path):
            planned = self._opened(
                models,
                processors=processors,
                profile=profile,
                partition=partition,
                samples=samples or None,
                fuse=None if fuse == "auto" else fuse,
            )
            cores = _cores_of(planned.plan.processors)
            planned = planned if pin else planned._replace(plan=_unpinned(planned.plan))
        else:
            if partition is not None and profile is not None:
                raise ConfigurationError(
                    "partitioning measures for itself; leave the profile out, or pass models that "
                    "`coinfer.planner.span_selection.prepare` made"
                )
            if processors is None:
                processors = default_processors(preempt=bool(preempt))
                self._preempt = preempt
            cores = _cores_of(_checked(processors))
            used = processors if pin else [_unpinned_one(each) for each in processors]
            self._given = find_backends(used, self._given)
            planned = self._planned(models, used, profile, samples)
        plan = planned.plan if choice is None else planned.plan.with_policy(choice)
        if memory is not None:
            plan = replace(plan, memory=self._memory.budget, pinned=self._memory.pin)
        planned = planned._replace(plan=plan)
        self._memory = MemorySpec(budget=dict(plan.memory), pin=plan.pinned)
        super().__init__(
            plan,
            planned.models,
            policy=chosen,
            limits=limits,
            backends=self._given,
            observer=observer,
            spinning=awake(cores) if keep_awake else None,
            memory_limit=memory_limit_bytes,
        )
        self.warnings.begin_with(plan.warnings)
        self._warm_up(planned, profile)
        if auto is not None:
            self._choose_policy(auto)
        # What was read and built of the models' files is not needed any more: sessions have theirs.
        del planned
        gc.collect()
        heap.trim()

    def load(
        self,
        name: str,
        model: _Source,
        profile: Profile | None = None,
        *,
        samples: SampleSource | None = None,
    ) -> None:
        """Add a model while others run; returns when it can be asked.

        Without a profile it is taken from the user's cache or measured now, beside what runs: pass
        one that was measured on the idle machine if the times matter.

        Args:
            name: What requests call it.
            model: As in the constructor.
            profile: Expected times.
            samples: What to measure with, as in the constructor.

        Raises:
            ConfigurationError: the name is taken, or the profile has no entry for it.
            BackendError: it cannot be loaded on a processor of its profile.
        """
        with self._loading:
            self._check_open()
            name = new_name(name)
            self._finish_changes()
            self._model_store.check_free(name)
            given = {} if samples is None else {name: samples}
            self._fuse = "never"  # it runs alone until all are planned anew
            planned = self._planned({name: model}, self.plan.processors, profile, given)
            self.warnings += planned.plan.warnings
            try:
                loaded = self._load_planned(
                    name, planned.models, planned.plan, planned.plan.profile
                )
                self.plan = self.plan.joined(loaded)
            except BaseException:  # e.g. Ctrl-C: all of it or nothing
                self._unload(name)
                raise
        self._warm_up(planned, profile)

    def _warm_up(self, planned: Planned, profile: Profile | None) -> None:
        """Run each session once at each class of sizes: libraries prepare for each.

        Of one size only where urgent requests may be the first: the first run takes several times
        as long as others. Who gives times and such processors also says when to warm up.
        """
        is_urgent = profile is None and any(p.overlays for p in self.plan.processors)
        for name, each in planned.plan.models.items():
            model = whole_of(planned.models[name])
            classes = {} if each.work is None else {each.work.size_class(s): s for s in each.sizes}
            sizes = list(classes.values())
            if len(sizes) <= 1 and not is_urgent:
                continue
            for dims in sizes or [{}]:
                try:
                    self.warm_up(name, model.sample_inputs(dims=dims))
                except HangError as error:
                    self.warnings.append(str(error))
                    break
                except CoinferError:  # e.g. strings; the samples are not kept
                    continue

    def _opened(self, plan: Plan | str | Path, **settled: object) -> Planned:
        if str(plan).startswith("zoo:") or str(plan).endswith(".onnx"):
            raise ConfigurationError(f"models have names; write {{'NAME': '{plan}'}}")
        if given := [name for name, value in settled.items() if value is not None]:
            raise ConfigurationError(
                f"the plan says which {given[0]} it is for; leave {given[0]}= out, or pass the "
                "models to have them planned anew"
            )
        return open_plan(plan, self._given)

    def _planned(
        self,
        models: Mapping[str, _Source],
        processors: Sequence[Processor],
        profile: Profile | None,
        samples: Mapping[str, SampleSource],
    ) -> Planned:
        for name in samples:
            if name not in models:
                raise UnknownNameError.of("model", name, models)
        found: dict[str, Model | CutModel] = {}
        sources: dict[str, str] = {}
        for name, model in models.items():
            if isinstance(model, str | Path):
                sources[name] = lasting_source(model)
                twin = next((n for n, source in sources.items() if source == sources[name]), name)
                if twin in found:  # one file under several names is read once
                    found[name] = whole_of(found[twin]).renamed(name)
                else:
                    found[name] = resolve_model(str(model), name=name)
            elif isinstance(model, Model | CutModel):
                found[name] = model
            else:
                raise ConfigurationError(
                    f"model {name!r} is {shown(model)}; give a path, `zoo:NAME`, or what "
                    "`load_model` returns"
                )
        given = {name: read_samples(whole_of(found[name]), each) for name, each in samples.items()}
        riders = batches_of(self._batch, found)
        if profile is not None:
            given_wishes = Wishes(sources=sources, riders=riders, memory=self._memory.budget)
            return given_plan(found, processors, profile, given_wishes, backends=self._given)
        cuts = {}
        if self._partition is not None:
            whole = [name for name, model in found.items() if isinstance(model, Model)]
            cuts = dict.fromkeys(whole, CutWish(self._partition))
        profiler = Profiler(
            cache=default_cache(),
            backends=self._given,
            budget=Budget(self._measure_s),
            progress=self._progress,
        )
        wishes = Wishes(
            cuts=cuts,
            sources=sources,
            agreement=self._agreement,
            preempt=self._preempt,
            riders=riders,
            variants=variants_of(self._variants, found),
            fuse=self._fuse,
            memory=self._memory.budget,
            pinned=tuple(name for name in self._memory.pin if name in found),
        )
        return make_plan(found, processors, wishes, profiler, samples=given)


def _check_kinds(models: object, limits: object) -> None:
    """Refuse what is of another kind altogether, before anything is made of it."""
    if not isinstance(models, Mapping | Plan | str | Path):
        raise ConfigurationError(
            f"models are {shown(models)}; write {{'NAME': 'FILE.onnx', ...}}, or give a plan, or "
            "its folder"
        )
    if not isinstance(limits, Limits):
        raise ConfigurationError(f"limits are {shown(limits)}; give coinfer.Limits(...)")


def _policy_of(
    policy: str | Policy | AutoPolicy | None,
) -> tuple[Policy | None, PolicyChoice | None]:
    """Return a policy that is no automatic one, and how plans name it; None: the plan's."""
    if policy is None or isinstance(policy, AutoPolicy):
        return None, None
    choice = PolicyChoice.of(policy)
    if isinstance(policy, str):
        return make_policy(policy), choice
    check_policy(policy)
    return policy, choice


def _checked(processors: object) -> Sequence[Processor]:
    if not isinstance(processors, Sequence) or not all(
        isinstance(each, Processor) for each in processors
    ):
        raise ConfigurationError(
            f"processors are {shown(processors)}; give a list of coinfer.Processor(...)"
        )
    if not processors:
        raise ConfigurationError("an engine needs at least one processor")
    if len({p.name for p in processors}) != len(processors):
        raise ConfigurationError("two processors have the same name; rename one")
    return processors


def _cores_of(processors: Sequence[Processor]) -> list[int]:
    return sorted({core for processor in processors for core in processor.cores})


def _unpinned_one(processor: Processor) -> Processor:
    return replace(processor, cores=())


def _unpinned(plan: Plan) -> Plan:
    free = tuple(map(_unpinned_one, plan.processors))
    return replace(plan, machine=replace(plan.machine, processors=free))
