"""Plan sections: what `plan.yaml` may hold, checked as scenarios are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    Strict,
    field_validator,
    model_validator,
)

from coinfer.documents.fields import (
    Count,
    Loc,
    Name,
    NonNegativeSeconds,
    Number,
    PositiveNumber,
    Problem,
    Section,
    WholeNumber,
    unknown_name,
    wrong,
)
from coinfer.documents.reading import validated
from coinfer.documents.yaml_document import YamlDocument
from coinfer.errors import ConfigurationError, ScenarioError
from coinfer.machine.batching import Batching
from coinfer.machine.machine import Machine
from coinfer.machine.processor import ordinary
from coinfer.machine.span import Fork, Span, boundaries, completes
from coinfer.machine.variant_use import Use
from coinfer.plan.choice import Alternative, Choice
from coinfer.plan.fused_plan import FusedPlan
from coinfer.plan.index_ranges import parse_ranges, span_text
from coinfer.plan.memory_spec import MemorySpec
from coinfer.plan.model_plan import ModelPlan
from coinfer.plan.plan import Plan, PolicyChoice
from coinfer.plan.plan_text import FORMAT, WHOLE
from coinfer.plan.variant import GraphFile, Kind, Unit, Variant
from coinfer.plan.work import Axis, Work

__all__ = ["MachineSection", "PlanSection", "ProfileSection", "read_plan_section"]


def _ranges(value: Any) -> tuple[int, ...]:
    if isinstance(value, tuple):
        return value
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise wrong("expected numbers and ranges like `0-41, 44`")
    try:
        return parse_ranges(value)
    except ConfigurationError as error:
        raise wrong(str(error)) from error


def _spans(value: Any) -> tuple[Span, ...]:
    """Read `whole`, or a list of units and runs of them like `[0, 1-2]`."""
    if value == WHOLE:
        return ()  # all units, however many there are
    if not isinstance(value, list | tuple) or not value:
        raise wrong(f"expected `{WHOLE}` or a list of units and runs of them like `[0, 1-2]`")
    found = [_ranges(each) for each in value]
    for text, numbers in zip(value, found, strict=True):
        if len(numbers) != numbers[-1] - numbers[0] + 1:
            raise wrong(f"{text!r} is no run of units; write it like `1-2`")
    return tuple(sorted({Span(numbers[0], numbers[-1]) for numbers in found}))


def _file_name(text: str) -> str:
    if "\0" in text:
        raise wrong(f"{text!r} is no name of a file; take the \\0 out")
    return text


def _source(text: str) -> str:
    try:
        return os.fspath(Path(text).expanduser()) if text.startswith("~") else text
    except RuntimeError as error:
        raise wrong(f"{text!r} names no home folder; write the whole path") from error


_MAX_UNITS = 10_000

FileName = Annotated[str, AfterValidator(_file_name)]
"""A file, relative to the plan's folder."""

UnitIndex = Annotated[int, Strict(), Field(ge=0, le=_MAX_UNITS)]
"""The number of a unit."""


class MachineSection(Section):
    """Which machine the plan was made for."""

    name: str
    file: FileName
    fingerprint: str


class PolicySection(Section):
    """Which policy decides."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


class UnitSection(Section):
    """The operators of one unit, and the name of the first, which is checked if it is there."""

    operators: Annotated[tuple[int, ...], BeforeValidator(_ranges)]
    first: str = ""


class ProfileSection(Section):
    """What was measured of a model."""

    file: FileName
    fingerprint: str


class BatchingSection(Section):
    """How far requests may share executions."""

    max: Count
    max_delay: NonNegativeSeconds = 0.0
    by_unit: tuple[Count, ...] = ()

    @property
    def value(self) -> Batching:
        """The batching."""
        return Batching(self.max, self.max_delay, self.by_unit)


class VariantSection(Section):
    """One graph, how it is cut and where its spans are loaded."""

    graph: FileName | None = None
    sha256: str = ""
    units: tuple[UnitSection, ...] = ()
    n_units: Annotated[Count, Field(le=_MAX_UNITS)] = 1
    forks: tuple[tuple[UnitIndex, UnitIndex, UnitIndex], ...] = ()
    processors: dict[Name, Annotated[tuple[Span, ...], BeforeValidator(_spans)]]
    error: Annotated[Number, Field(ge=0)] = 0.0
    use: Use = Use.ALWAYS
    profile: ProfileSection | None = None
    batching: BatchingSection | None = None

    @field_validator("forks")
    @classmethod
    def _in_order(cls, forks: tuple[tuple[int, int, int], ...]) -> tuple[tuple[int, int, int], ...]:
        for first, middle, last in forks:
            if not first < middle <= last:
                raise wrong(f"[{first}, {middle}, {last}] is no fork: the numbers must ascend")
        return forks

    @property
    def count(self) -> int:
        """Number of units."""
        return len(self.units) or self.n_units

    @property
    def spans(self) -> dict[str, tuple[Span, ...]]:
        """What is loaded, by processor."""
        whole = (Span(0, self.count - 1),)
        return {name: spans or whole for name, spans in self.processors.items()}

    def variant(self, kind: Kind) -> Variant:
        """Build the variant."""
        return Variant(
            kind=kind,
            graph=None if self.graph is None else GraphFile(self.graph, self.sha256),
            n_units=self.count,
            units=tuple(Unit(unit.operators, unit.first) for unit in self.units),
            forks=tuple(Fork(*fork) for fork in self.forks),
            spans=self.spans,
            error=self.error,
            use=self.use,
            batching=None if self.batching is None else self.batching.value,
        )


class LostSection(Section):
    """What was not chosen, and what it lost by."""

    what: str
    by: str


class ChoiceSection(Section):
    """What a pass decided."""

    by: str = Field(alias="pass")
    chosen: str
    lost: tuple[LostSection, ...] = ()


def _choices(sections: tuple[ChoiceSection, ...]) -> tuple[Choice, ...]:
    return tuple(
        Choice(c.by, c.chosen, tuple(Alternative(lost.what, lost.by) for lost in c.lost))
        for c in sections
    )


class WorkSection(Section):
    """How the work of a run grows with the sizes of open dimensions."""

    base: PositiveNumber
    axes: dict[str, tuple[str, WholeNumber]]
    terms: tuple[tuple[Number | str, ...], ...]

    @field_validator("terms")
    @classmethod
    def _factor_first(cls, terms: tuple[tuple[Any, ...], ...]) -> tuple[tuple[Any, ...], ...]:
        for term in terms:
            if (
                not term
                or isinstance(term[0], str)
                or not all(isinstance(n, str) for n in term[1:])
            ):
                raise wrong("expected a number and then names of dimensions, e.g. `[880.0, h, w]`")
        return terms

    def work(self, padded: tuple[str, ...] = ()) -> Work:
        """Build the work, of a model that is padded along some dimensions."""
        axes = {name: Axis(*place) for name, place in self.axes.items()}
        terms = {tuple(map(str, names)): float(factor) for factor, *names in self.terms}
        return Work(axes, terms, self.base, padded)


class ModelSection(Section):
    """One model."""

    source: Annotated[str, AfterValidator(_file_name), AfterValidator(_source)] = ""
    fingerprint: str = ""
    batch: Count | Literal["fixed"] = 1
    filling: WholeNumber = 0
    padding: dict[str, dict[str, Number]] = Field(default_factory=dict)
    batching: BatchingSection | None = None
    sizes: tuple[dict[str, WholeNumber], ...] = ()
    work: WorkSection | None = None
    profile: ProfileSection
    variants: Annotated[dict[Kind, VariantSection], Field(min_length=1)]
    why: tuple[ChoiceSection, ...] = ()

    @model_validator(mode="after")
    def _one_of_each_unit(self) -> Self:
        by_unit = () if self.batching is None else self.batching.by_unit
        original = self.variants.get(Kind.ORIGINAL)
        n_units = 0 if original is None else original.count
        if by_unit and len(by_unit) != n_units:
            raise wrong(f"`by_unit` has {len(by_unit)} numbers, and the model has {n_units} units")
        return self

    def planned(self, base: Path) -> ModelPlan:
        """Build the model's plan; relative sources start in a folder."""
        local = self.source and not self.source.startswith("zoo:")
        return ModelPlan(
            source=str(base / self.source) if local else self.source,
            fingerprint=self.fingerprint,
            batch=1 if self.batch == "fixed" else self.batch,
            fixed_batch=self.batch == "fixed",
            filling=self.filling,
            batching=None if self.batching is None else self.batching.value,
            padding=self.padding,
            sizes=self.sizes,
            work=None if self.work is None else self.work.work(tuple(self.padding)),
            variants={kind: section.variant(kind) for kind, section in self.variants.items()},
            choices=_choices(self.why),
        )


class FusedSection(Section):
    """One graph that answers several models."""

    models: Annotated[tuple[Name, ...], Field(min_length=2)]
    graph: FileName
    sha256: str
    batch: Count = 1
    profile: ProfileSection
    processors: Annotated[tuple[Name, ...], Field(min_length=1)]
    why: tuple[ChoiceSection, ...] = ()

    def planned(self) -> FusedPlan:
        """Build the value."""
        return FusedPlan(
            models=self.models,
            graph=GraphFile(self.graph, self.sha256),
            batch=self.batch,
            processors=self.processors,
            choices=_choices(self.why),
        )


class PlanSection(Section):
    """All of `plan.yaml`."""

    format: str
    name: str = "plan"
    machine: MachineSection
    policy: PolicySection = PolicySection(name="earliest_finish")
    policy_why: tuple[ChoiceSection, ...] = ()
    memory: MemorySpec = MemorySpec()
    models: Annotated[dict[Name, ModelSection], Field(min_length=1)]
    fused: dict[Name, FusedSection] = Field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    rates: dict[Name, PositiveNumber] = Field(default_factory=dict)

    def plan(self, machine: Machine, base: Path, document: YamlDocument) -> Plan:
        """Build the plan.

        Raises:
            ScenarioError: it names a processor or a span that there is not.
        """
        for loc, message in _problems(self, [p.name for p in ordinary(machine.processors)]):
            field = ".".join(map(str, loc))
            raise ScenarioError(f"{document.origin}:{document.line_of(loc)}: {field}: {message}")
        return Plan(
            name=self.name,
            machine=machine,
            models={name: section.planned(base) for name, section in self.models.items()},
            fused={name: section.planned() for name, section in self.fused.items()},
            policy=PolicyChoice(name=self.policy.name, options=self.policy.options),
            policy_why=_choices(self.policy_why),
            memory=self.memory.budget,
            pinned=self.memory.pin,
            warnings=self.warnings,
            rates={name: rate for name, rate in self.rates.items() if name in self.models},
        )


def read_plan_section(document: YamlDocument) -> PlanSection:
    """Check a document.

    Raises:
        ScenarioError: it is no plan, of another format, or something in it is wrong.
    """
    data = document.data
    written = data.get("format") if isinstance(data, dict) else None
    if written != FORMAT:
        kind = "of a newer coinfer" if str(written).startswith("coinfer-plan/") else "no plan"
        raise ScenarioError(
            f"{document.origin}:{document.line_of(('format',))}: format: is {written!r}, {kind}; "
            f"this version reads {FORMAT}: update coinfer, or make the plan anew"
        )
    return validated(PlanSection, document)


def _problems(plan: PlanSection, processors: list[str]) -> Iterator[Problem]:
    for name, model in plan.models.items():
        at = ("models", name, "variants")
        yield from _of_variants(model.variants, at)
        for kind, variant in model.variants.items():
            if variant.processors:
                yield from _of_variant(variant, (*at, kind.value), processors)
    for name, fused in plan.fused.items():
        yield from _of_fused(plan, name, fused, processors)


def _of_variants(variants: Mapping[Kind, VariantSection], at: Loc) -> Iterator[Problem]:
    """Something must serve, and what is no original must say what it is."""
    if Kind.ORIGINAL not in variants:
        yield Problem(at, "there is no `original`, which all others are compared with; add it")
    serving = [each for each in variants.values() if each.processors and each.use is not Use.NEVER]
    if not serving:
        yield Problem(at, "no variant has a processor and may be used; load one")
    for kind, each in variants.items():
        if kind is not Kind.ORIGINAL and each.profile is None:
            yield Problem((*at, kind.value, "profile"), "is missing; make the plan anew")


def _of_fused(
    plan: PlanSection, name: str, fused: FusedSection, processors: list[str]
) -> Iterator[Problem]:
    at: Loc = ("fused", name)
    if name in plan.models:
        yield Problem(at, "a model has this name; rename the fused variant")
    for processor in fused.processors:
        if processor not in processors:
            yield Problem((*at, "processors"), unknown_name("processor", processor, processors))
    for member in fused.models:
        if member not in plan.models:
            yield Problem((*at, "models"), unknown_name("model", member, plan.models))
            continue
        if fused.models.count(member) > 1:
            yield Problem((*at, "models"), f"{member!r} is there twice; take one out")
        model = plan.models[member]
        if any(variant.count > 1 for variant in model.variants.values()):
            yield Problem((*at, "models"), f"{member!r} is cut, so it cannot be fused")
        batch = 1 if model.batch == "fixed" else model.batch
        if batch != fused.batch:
            yield Problem(
                (*at, "batch"), f"is {fused.batch}, and the batch of {member!r} is {batch}"
            )


def _of_variant(variant: VariantSection, at: Loc, processors: list[str]) -> Iterator[Problem]:
    n_units, loaded = variant.count, set[Span]()
    for processor, spans in variant.spans.items():
        loc = (*at, "processors", processor)
        if processor not in processors:
            yield Problem(loc, unknown_name("processor", processor, processors))
        for span in spans:
            if span.last >= n_units:
                yield Problem(loc, f"there is no unit {span.last}: the model has {n_units}, from 0")
        loaded.update(spans)
    if not completes(loaded, n_units):
        yield Problem(
            (*at, "processors"),
            f"what is loaded does not lead to the end of the model: {_gap(loaded, n_units)}",
        )
    for i, numbers in enumerate(variant.forks):
        fork = Fork(*numbers)
        if fork.last >= n_units:
            yield Problem(
                (*at, "forks", i), f"there is no unit {fork.last}: the model has {n_units}"
            )
        elif not {fork.left, fork.right} <= loaded:
            yield Problem(
                (*at, "forks", i),
                f"its sides, {span_text(fork.left)} and {span_text(fork.right)}, are not both "
                "loaded; load them, or take the fork out",
            )
    if variant.graph is not None and not variant.sha256:
        yield Problem((*at, "sha256"), "is missing beside `graph`; add it")


def _gap(loaded: set[Span], n_units: int) -> str:
    stuck_at = max(at for at in boundaries(loaded) if at < n_units)
    return f"no span begins with unit {stuck_at} and leads on"
