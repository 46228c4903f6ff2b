"""Scenario: models, how their requests arrive, and their deadlines. Knows no machine and no file.

A scenario is a value; `scenario_file` reads it from YAML.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    TypeAdapter,
    ValidationInfo,
    model_validator,
)

from coinfer.core.dispatcher import Limits
from coinfer.core.request import OnLate
from coinfer.documents.fields import (
    Count,
    FilePath,
    Loc,
    Name,
    NonNegativeSeconds,
    PositiveNumber,
    PositiveSeconds,
    Problem,
    Section,
    WholeNumber,
    base_of,
    raise_all,
    unknown_name,
    wrong,
)
from coinfer.errors import ConfigurationError
from coinfer.plan.memory_spec import MemorySpec
from coinfer.plan.plan import AUTO
from coinfer.workload.agreement_spec import AgreementSpec
from coinfer.workload.arrivals import After, Closed, Mix, Offline, Periodic, Process
from coinfer.workload.batch_spec import BatchSpec
from coinfer.workload.cascades import cascade_problems, root_of
from coinfer.workload.deadline import PERIOD, Deadline
from coinfer.workload.dims_spec import Dims
from coinfer.workload.ensemble_load import EnsembleLoads, after_one_another
from coinfer.workload.fuse_spec import Fusing, unknown_member
from coinfer.workload.input_spec import InputSpec, RandomInputs, with_dims
from coinfer.workload.partition_spec import Partitioning, PartitionSpec
from coinfer.workload.processor_spec import (
    DefaultProcessors,
    PrecisionSpec,
    Processors,
    ProcessorSpec,
)
from coinfer.workload.variants_spec import VariantsSpec

__all__ = ["MixArrivals", "ModelSpec", "OfflineArrivals", "PolicySpec", "Scenario"]

_ZOO = "zoo:"


def _source(value: str, info: ValidationInfo) -> str:
    if value.startswith(_ZOO):
        return value
    return str(base_of(info) / Path(value).expanduser())


def _sized(inputs: InputSpec, info: ValidationInfo) -> InputSpec:
    return with_dims(inputs, info.data.get("stated_dims", ()))


class ModelSpec(Section):
    """A model, what it is fed with, and what its requests are promised.

    Attributes:
        source: `zoo:NAME`, or the path of an ONNX file with the scenario's folder before it. Empty
            if there is none, as is enough to simulate on a described machine.
        stated_dims: Sizes of its open dimensions, as far as they are written beside the inputs.
            `inputs` has them too.
        inputs: Where its inputs come from.
        deadline: Seconds from the moment a request is due until it must be answered; `period`:
            until the next request of the same periodic process is due.
        priority: Larger is more urgent.
        on_late: What to do with a request whose deadline passes before it has started.
        batching: Samples in each request, and how requests share executions; written as `batch`.
        partition: How it is cut; without, as the scenario says for all.
        variants: Cheaper variants beside it, and when they serve; without, there are none.
    """

    source: Annotated[str, Field(min_length=1), AfterValidator(_source)] = ""
    stated_dims: Dims = Field(alias="dims", default=(), repr=False, exclude=True)
    inputs: Annotated[InputSpec, AfterValidator(_sized), Field(validate_default=True)] = (
        RandomInputs()
    )
    deadline: Deadline = None
    priority: WholeNumber = 0
    on_late: OnLate = OnLate.RUN
    batching: BatchSpec = Field(alias="batch", default=BatchSpec())
    partition: Partitioning = None
    variants: VariantsSpec | None = None
    _period_s: float | None = PrivateAttr(default=None)

    @property
    def batch(self) -> int:
        """Samples in each request."""
        return self.batching.samples

    def with_single_samples(self) -> Self:
        """Copy it with one sample in each request."""
        batching = self.batching.model_copy(update={"samples": 1})
        return self.model_copy(update={"batching": batching})

    @property
    def deadline_s(self) -> float | None:
        """Seconds until a request must be answered; None: no deadline.

        A deadline of one period is known in a scenario only, which knows the process.
        """
        return self._period_s if self.deadline == PERIOD else self.deadline

    def with_period(self, seconds: float) -> Self:
        """Copy it with the period that a deadline of one period stands for."""
        copy = self.model_copy()
        copy._period_s = seconds
        return copy

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: Any) -> Any:
        return {"source": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _can_be_late(self) -> ModelSpec:
        if self.on_late is OnLate.DROP and self.deadline is None:
            raise_all([Problem(("on_late",), "drop needs a deadline; add e.g. `deadline: 33ms`")])
        return self


class MixArrivals(Section):
    """The whole mix as one closed loop."""

    mix: Mix


class OfflineArrivals(Section):
    """Finite counts, all due at the start."""

    offline: Offline


class PolicySpec(Section):
    """A policy by name, with its options."""

    name: str
    options: Mapping[str, Any] = Field(default_factory=dict)


def _policy(value: Any) -> Any:
    if isinstance(value, str):
        return {"name": value}
    if not isinstance(value, dict) or "options" in value:
        return value
    options = {key: option for key, option in value.items() if key != "name"}
    return {key: value[key] for key in value if key == "name"} | {"options": options}


_PROCESSES: TypeAdapter[dict[str, Process]] = TypeAdapter(dict[str, Process])


def _arrivals(value: Any, info: ValidationInfo) -> Any:
    """Choose the one form that is meant, so that errors speak of that one only."""
    if isinstance(value, MixArrivals | OfflineArrivals):
        return value
    if not isinstance(value, dict) or not value:
        raise wrong("expected {mix: ...} or {offline: ...} or an arrival process per model")
    if "mix" in value:
        return MixArrivals.model_validate(value, context=info.context)
    if "offline" in value:
        return OfflineArrivals.model_validate(value, context=info.context)
    return _PROCESSES.validate_python(value, context=info.context)


class Scenario(Section):
    """Models, how their requests arrive, what is promised, and on what it should run.

    Attributes:
        name: What reports call it.
        models: By name; two names may have the same source.
        ensembles: Pipelines of these models. Once read, the models have their requests.
        arrivals: One closed loop over the mix, finite counts at once, or a process per model.
        duration_s: Measured time. Nothing is due after `warmup_s + duration_s`.
        warmup_s: Time before that; it is loaded but not counted.
        machine: A file that describes the machine to simulate; None: this machine.
        seed: Of everything random.
        policy: Which policy decides; `auto`: the one that planning finds best for this load.
        processors: What to run on: found ones, found ones by name, or described ones.
        precision: What may run below fp32.
        agreement: How near outputs must be to those of the reference.
        partition: How models are cut into spans; None: they run whole.
        fuse: Which models may be answered by one run of a fused network: `auto`, `never`, or groups
            of them by name.
        max_blocking: Seconds for which requests that share an execution may keep a processor from
            others, where some model has a deadline; None: twice the longest run of one request.
        memory: Bytes for what is loaded, and what is never evicted.
        admission_limit: Requests that may wait at once, beside those that run; more are rejected.
        rate_factor: All open-loop rates are multiplied by it; deadlines of one period follow.
        score: A published score to compute beside the figures.
        description: What it stands for, and where it is from; for readers.
    """

    name: str = "scenario"
    models: Annotated[dict[Name, ModelSpec], Field(min_length=1)]
    ensembles: EnsembleLoads
    arrivals: Annotated[
        MixArrivals | OfflineArrivals | dict[str, Process], BeforeValidator(_arrivals)
    ]
    duration_s: PositiveSeconds = Field(alias="duration", default=10.0)
    warmup_s: NonNegativeSeconds = Field(alias="warmup", default=1.0)
    seed: Annotated[WholeNumber, Field(ge=0)] = 0
    policy: Annotated[PolicySpec, BeforeValidator(_policy)] = PolicySpec(name="earliest_finish")
    processors: Processors = DefaultProcessors()
    precision: PrecisionSpec = PrecisionSpec()
    agreement: AgreementSpec = AgreementSpec()
    partition: Partitioning = None
    fuse: Fusing = "auto"
    memory: MemorySpec = MemorySpec()
    admission_limit: Count = 1000
    max_blocking: PositiveSeconds | None = None
    machine: FilePath | None = None
    rate_factor: PositiveNumber = 1.0
    score: Literal["xrbench"] | None = None
    description: str = ""

    @model_validator(mode="after")
    def _fits_together(self) -> Scenario:
        raise_all(_ensemble_problems(self))
        raise_all(
            [
                *_source_problems(self),
                *_arrival_problems(self),
                *_offline_problems(self),
                *_crowd_problems(self),
                *_fan_out_problems(self),
                *_precision_problems(self),
                *_fuse_problems(self),
                *cascade_problems(self.processes, self.models),
                *_score_problems(self),
                *_policy_problems(self),
            ]
        )
        self.models.update(_with_periods(self))
        return self

    @property
    def mix(self) -> Mix | None:
        """The closed loop over the whole mix; None if each model has its own process."""
        return self.arrivals.mix if isinstance(self.arrivals, MixArrivals) else None

    @property
    def processes(self) -> Mapping[str, Process]:
        """The arrival process of each model; empty if there is one load for all of them."""
        return self.arrivals if isinstance(self.arrivals, dict) else {}

    @property
    def offline(self) -> Offline | None:
        """The finite counts that are all due at the start; None if the load is another one."""
        return self.arrivals.offline if isinstance(self.arrivals, OfflineArrivals) else None

    @property
    def limits(self) -> Limits:
        """What the core is to enforce, in a real run, a simulation and a replay alike."""
        return Limits(max_waiting=self.admission_limit, max_blocking_s=self.max_blocking)

    def partition_of(self, model: str) -> PartitionSpec | None:
        """How a model is cut; None: it runs whole."""
        return self.models[model].partition or self.partition

    @property
    def begin_s(self) -> float:
        """Seconds from the start, at which measuring begins."""
        return 0.0 if self.offline else self.warmup_s

    @property
    def end_s(self) -> float:
        """Seconds from the start, warm-up included, after which nothing is due.

        Infinite where the load ends by itself, when all is answered.
        """
        return math.inf if self.offline else self.warmup_s + self.duration_s

    def scaled(self, factor: float) -> Scenario:
        """Copy it with all open-loop rates multiplied by a positive factor.

        Times between requests, phase and jitter shrink by it, and so does a deadline of one
        period. Other deadlines and closed loops stay as they are.
        """
        copy = self.model_copy(update={"rate_factor": self.rate_factor * factor})
        return copy.model_copy(update={"models": {**self.models, **_with_periods(copy)}})

    def with_options(
        self,
        *,
        policy: str | None = None,
        policy_options: Mapping[str, Any] | None = None,
        duration_s: float | None = None,
        seed: int | None = None,
        rate_factor: float | None = None,
    ) -> Scenario:
        """Copy it with what a command line overrides; None keeps what the scenario says.

        Raises:
            ConfigurationError: the duration is not positive, or the load has none; or the seed is
                negative, or the rate factor is not positive; or the policy is `auto`, which takes
                no options.
        """
        if duration_s is not None and self.offline:
            raise ConfigurationError(
                "an offline load lasts until all is answered; leave the duration out, or change "
                "its counts"
            )
        if duration_s is not None and not 0 < duration_s < math.inf:
            raise ConfigurationError(f"duration must be greater than 0, is {duration_s:g}")
        if seed is not None and seed < 0:
            raise ConfigurationError(f"seed must not be negative, is {seed}")
        if rate_factor is not None and not 0 < rate_factor < math.inf:
            raise ConfigurationError(f"rate factor must be greater than 0, is {rate_factor:g}")
        given = {
            "policy": self._policy_with(policy or self.policy.name, policy_options or {}),
            "duration_s": duration_s,
            "seed": seed,
        }
        copy = self.model_copy(update={k: v for k, v in given.items() if v is not None})
        return copy if rate_factor is None else copy.scaled(rate_factor / copy.rate_factor)

    def _policy_with(self, name: str, options: Mapping[str, Any]) -> PolicySpec:
        # The options in the file are those of the policy in the file.
        own = self.policy.options if name == self.policy.name else {}
        if name == AUTO and options:
            raise ConfigurationError(_no_options(next(iter(options))))
        return PolicySpec(name=name, options={**own, **options})


def _ensemble_problems(scenario: Scenario) -> list[Problem]:
    """Give the models of ensembles their requests; name what is wrong."""
    if isinstance(scenario.arrivals, dict):
        return list(after_one_another(scenario.ensembles, scenario.models, scenario.arrivals))
    text = "needs arrivals of its own, e.g. `arrivals: {%s: {periodic: 30/s}}`"
    return [Problem(("ensembles", name), text % name) for name in scenario.ensembles]


def _source_problems(scenario: Scenario) -> Iterator[Problem]:
    """Only on a described machine nothing is loaded."""
    for name, spec in scenario.models.items():
        if scenario.machine is None and not spec.source:
            yield Problem(("models", name, "source"), "is missing; add it")


def _offline_problems(scenario: Scenario) -> Iterator[Problem]:
    """What is measured from the start to the last answer has no other times."""
    remedy = "has no meaning for an offline load, which is measured whole; remove it"
    for field in ("duration", "warmup"):
        if scenario.offline is not None and f"{field}_s" in scenario.model_fields_set:
            yield Problem((field,), remedy)


def _arrival_problems(scenario: Scenario) -> Iterator[Problem]:
    """Every model must get requests, and only models may."""
    loc: Loc = ("arrivals",)
    named: Iterable[str] = scenario.processes
    if scenario.mix is not None:
        loc, named = ("arrivals", "mix", "weights"), scenario.mix.weights or scenario.models
    if scenario.offline is not None:
        loc, named = ("arrivals", "offline", "counts"), scenario.offline.counts
    for name in named:
        if name not in scenario.models:
            yield Problem((*loc, name), unknown_name("model", name, scenario.models))
    for name in scenario.models:
        if name not in named:
            yield Problem(loc, f"model {name!r} gets no requests; give it arrivals or remove it")


def _crowd_problems(scenario: Scenario) -> Iterator[Problem]:
    """More requests at once than the admission limit would only collect rejections."""
    loops: dict[Loc, int] = {
        ("arrivals", name, "closed"): process.in_flight
        for name, process in scenario.processes.items()
        if isinstance(process, Closed)
    }
    if scenario.mix is not None:
        loops["arrivals", "mix", "in_flight"] = scenario.mix.in_flight
    if scenario.offline is not None:
        loops["arrivals", "offline", "counts"] = sum(scenario.offline.counts.values())
    total, limit = sum(loops.values()), scenario.admission_limit
    if total > limit:
        yield Problem(
            max(loops, key=loops.__getitem__),
            f"{total} requests in flight exceed the admission limit of {limit}; "
            f"lower it or raise `admission_limit`",
        )


def _fan_out_problems(scenario: Scenario) -> Iterator[Problem]:
    """More requests at once than the admission limit: here after a single one."""
    limit = scenario.admission_limit
    for name, process in scenario.processes.items():
        if isinstance(process, After) and process.mean_if_any > limit:
            yield Problem(
                ("arrivals", name, "count"),
                f"{process.mean_if_any:g} requests at once exceed the admission limit of {limit}; "
                f"lower it or raise `admission_limit`",
            )


def _score_problems(scenario: Scenario) -> Iterator[Problem]:
    """A score that asks how close an answer is to its deadline needs one."""
    remedy = f"is missing; the score {scenario.score} needs it"
    for name, spec in scenario.models.items():
        if scenario.score is not None and spec.deadline is None:
            yield Problem(("models", name, "deadline"), remedy)


def _policy_problems(scenario: Scenario) -> Iterator[Problem]:
    """What chooses a policy chooses its options too."""
    if scenario.policy.name == AUTO:
        for option in scenario.policy.options:
            yield Problem(("policy", option), _no_options(option))


def _no_options(option: str) -> str:
    return (
        f"policy {AUTO!r} chooses the options too, and {option!r} is given; leave it out, or name "
        "a policy"
    )


def _precision_problems(scenario: Scenario) -> Iterator[Problem]:
    """A described processor may not go below fp32 behind the user's back."""
    if isinstance(scenario.processors, DefaultProcessors):
        return
    allowed = ("fp32", *scenario.precision.allow)
    for index, spec in enumerate(scenario.processors):
        if isinstance(spec, ProcessorSpec) and spec.precision not in allowed:
            yield Problem(
                ("processors", index, "precision"),
                f"{spec.precision} is not allowed; add `precision: {{allow: [{spec.precision}], "
                "tolerance: 0.02}`",
            )


def _fuse_problems(scenario: Scenario) -> Iterator[Problem]:
    stranger = unknown_member(scenario.fuse, scenario.models)
    if stranger is not None:
        yield Problem(("fuse",), unknown_name("model", stranger, scenario.models))


def _with_periods(scenario: Scenario) -> dict[str, ModelSpec]:
    """Return the models with a deadline of one period, which they know then.

    Raises:
        PydanticCustomError: the requests of one of them have no period.
    """
    found: dict[str, ModelSpec] = {}
    problems = []
    for name, spec in scenario.models.items():
        if spec.deadline != PERIOD:
            continue
        process = scenario.processes.get(root_of(name, scenario.processes))
        if isinstance(process, Periodic):
            found[name] = spec.with_period(1 / (process.rate_per_s * scenario.rate_factor))
        else:
            remedy = "state a time like 33ms, or make the arrivals periodic"
            problem = f"its requests have no period; {remedy}"
            problems.append(Problem(("models", name, "deadline"), problem))
    raise_all(problems)
    return found
