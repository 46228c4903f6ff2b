"""Read machines from YAML files. Every error names the file, the line and the field."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo, model_validator

from coinfer.documents.fields import (
    ByteSize,
    Name,
    NonNegativeSeconds,
    Number,
    OperatorTypes,
    PositiveNumber,
    PositiveSeconds,
    Problem,
    Section,
    check_one_declaration,
    raise_all,
    unknown_name,
)
from coinfer.documents.reading import read_text, validated
from coinfer.documents.yaml_document import YamlDocument
from coinfer.errors import ConfigurationError, ScenarioError
from coinfer.machine.contention import Contention
from coinfer.machine.machine import Machine
from coinfer.machine.memories import HOST, memory_of
from coinfer.machine.processor import Processor, twins
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.machine.widths_section import TopologySection, WidthsSection
from coinfer.scenarios import library

__all__ = ["MachineFile", "load_machine", "parse_machine"]

_Spread = Annotated[Number, Field(ge=0)]


class TimesSpec(Section):
    """How long one model takes on one processor.

    Attributes:
        mean_s: Mean service time of one sample.
        cv: Coefficient of variation; 0 is constant, 1 is exponential. None: the file's.
        load_s: Seconds to make it resident. None: the processor's.
        memory: Bytes that it takes while it is loaded.
    """

    mean_s: PositiveSeconds = Field(alias="mean")
    cv: _Spread | None = None
    load_s: NonNegativeSeconds | None = Field(alias="load", default=None)
    memory: ByteSize = 0


def _times(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, TimesSpec):
        return value
    if not isinstance(value, dict):
        # Bare, so that errors speak of the value and not of a field that was not written.
        return TimesSpec(mean=value)
    return TimesSpec.model_validate(value, context=info.context)


class ImaginedProcessor(Section):
    """A processor of a described machine.

    Attributes:
        device: What it is, for readers; if it has a memory of its own, the name of that. Processors
            of one such device and precision hold the weights of a model once between them.
        precision: What it computes in, for readers.
        units: Compute units that it occupies; by default one of its own. Processors that share a
            unit exclude each other.
        one_model: It holds one model at a time.
        load_s: Seconds to change the model; without, it never changes it.
        resident: The model that it then keeps.
        supported_ops: Operator types that it runs; empty: all, but for those below.
        unsupported_ops: Operator types that it does not run; at most one of the two.
        overlays: Units on top of which it runs by priority, as an express processor; it takes as
            long as the processor that occupies just these.
    """

    device: str = "imagined"
    precision: str = "fp32"
    units: tuple[str, ...] = ()
    one_model: bool = False
    load_s: NonNegativeSeconds | None = Field(alias="load", default=None)
    resident: str | None = None
    supported_ops: OperatorTypes = ()
    unsupported_ops: OperatorTypes = ()
    overlays: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _fits_together(self) -> ImaginedProcessor:
        check_one_declaration(self.supported_ops, self.unsupported_ops)
        problem = ""
        if not self.one_model:
            problem = "needs `one_model: true` beside it"
        elif self.load_s is not None:
            problem = "is only for a model that is never changed; remove it or `load`"
        if problem and self.resident is not None:
            raise_all([Problem(("resident",), problem)])
        return self


class MachineFile(Section):
    """Processors and a table of times.

    Attributes:
        name: What reports call it.
        processors: By name, in the order of preference.
        times: `{model: {processor: time}}`; where there is none, the model cannot run.
        cv: Coefficient of variation of all times that do not state theirs.
        slowdown: `{processor: {other: factor}}`: while the other runs, it takes that much longer.
        overhead_s: Seconds by which each execution occupies its processor beyond its service time.
        topology: Its cores and what they share.
        widths: By the first part of their names: processors of every useful width over the cores
            of `topology`, with how models scale on them.
    """

    name: str = "machine"
    processors: dict[Name, ImaginedProcessor] = Field(default_factory=dict)
    times: dict[str, dict[str, Annotated[TimesSpec, BeforeValidator(_times)]]] = Field(
        default_factory=dict
    )
    cv: _Spread = 0.0
    slowdown: dict[str, dict[str, PositiveNumber]] = Field(default_factory=dict)
    overhead_s: NonNegativeSeconds = Field(alias="overhead", default=0.0)
    topology: TopologySection | None = None
    widths: dict[Name, WidthsSection] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits_together(self) -> MachineFile:
        raise_all([*_width_problems(self)])
        raise_all([*_name_problems(self), *_resident_problems(self), *_express_problems(self)])
        return self

    def machine(self) -> Machine:
        """Build the machine; of a processor that keeps a stated model, only that one is left."""
        holders = {name: spec for name, spec in self.processors.items() if spec.one_model}
        swaps = frozenset(name for name in holders if self._can_swap(name))
        entries: dict[ProfileKey, Measurement] = {}
        spreads: dict[tuple[str, str], float] = {}
        for model, row in self.times.items():
            for name, spec in row.items():
                load_s = self.processors[name].load_s if spec.load_s is None else spec.load_s
                entry = Measurement(
                    seconds=(spec.mean_s,), load_s=load_s or 0.0, resident_bytes=spec.memory
                )
                entries[ProfileKey(model, name)] = entry
                if cv := self.cv if spec.cv is None else spec.cv:
                    spreads[model, name] = cv
        wide = self.wide_processors()
        for prefix, section in self.widths.items():
            found = dict(section.entries(wide[prefix]))
            entries |= found
            if self.cv:
                spreads |= {(key.model, key.processor): self.cv for key in found}
        machine = Machine(
            name=self.name,
            processors=(
                *(_processor(n, spec) for n, spec in self.processors.items()),
                *chain.from_iterable(wide.values()),
            ),
            profile=Profile(entries),
            spreads=spreads,
            swaps=swaps,
            keeps=frozenset(holders) - swaps,
            contention=Contention(factors=self.slowdown),
            overhead_s=self.overhead_s,
            topology=self.topology.topology() if self.topology else None,
            shares=self._shares(),
        )
        return machine.holding({n: s.resident for n, s in holders.items() if s.resident})

    def _shares(self) -> dict[str, str]:
        """Return by processor the first one with whose weights it runs, if it has none itself."""
        first: dict[tuple[str, str], str] = {}
        shares = {}
        for name, spec in self.processors.items():
            processor = _processor(name, spec)
            if memory_of(processor) == HOST or spec.overlays or spec.one_model:
                continue
            owner = first.setdefault((spec.device, spec.precision), name)
            if owner != name:
                shares[name] = owner
        return shares

    def wide_processors(self) -> dict[str, tuple[Processor, ...]]:
        """Return the processors of `widths`, by the first part of their names."""
        if self.topology is None:
            return {}
        topology = self.topology.topology()
        return {prefix: s.processors(topology, prefix) for prefix, s in self.widths.items()}

    def _can_swap(self, processor: str) -> bool:
        rows = [row[processor] for row in self.times.values() if processor in row]
        by_default = self.processors[processor].load_s is not None
        return all(by_default or spec.load_s is not None for spec in rows)


def _processor(name: str, spec: ImaginedProcessor) -> Processor:
    return Processor(
        name=name,
        backend="imagined",
        device=spec.device,
        units=frozenset(spec.units or [f"{unit}+" for unit in spec.overlays] or [name]),
        precision=spec.precision,
        supported_ops=frozenset(spec.supported_ops),
        unsupported_ops=frozenset(spec.unsupported_ops),
        overlays=frozenset(spec.overlays),
        spread=name,  # no two described ones are taken for alike
    )


def _width_problems(file: MachineFile) -> list[Problem]:
    if not file.widths:
        given = file.model_fields_set
        return [
            Problem((name,), "must not be empty" if name in given else "is missing; add it")
            for name in ("processors", "times")
            if not getattr(file, name)
        ]
    if file.topology is None:
        return [
            Problem(("widths",), "needs a `topology` beside it, which says what cores there are")
        ]
    wide = file.wide_processors()
    names = Counter([*file.processors, *(p.name for each in wide.values() for p in each)])
    twice = [name for name, count in names.items() if count > 1]
    words = {word for each in wide.values() for p in each for word in p.spread.split(", ")} - {""}
    return [
        Problem(("widths",), f"there are two processors {name!r}; rename one") for name in twice[:1]
    ] + [
        Problem(("widths", prefix, "factors", name), unknown_name("difference", name, words))
        for prefix, section in file.widths.items()
        for name in section.factors
        if name not in words
    ]


def _name_problems(file: MachineFile) -> list[Problem]:
    known = [*file.processors, *(p.name for each in file.wide_processors().values() for p in each)]
    named: list[tuple[str, ...]] = [
        ("times", model, name) for model, row in file.times.items() for name in row
    ]
    for name, row in file.slowdown.items():
        named += [("slowdown", name), *(("slowdown", name, other) for other in row)]
    problems = [
        Problem(loc, unknown_name("processor", loc[-1], known))
        for loc in named
        if loc[-1] not in (file.processors if loc[0] == "times" else known)
    ]
    return problems + [
        Problem(("times", model), "no processor runs it; give it a time or remove it")
        for model, row in file.times.items()
        if not row
    ]


def _resident_problems(file: MachineFile) -> list[Problem]:
    return [
        Problem(
            ("processors", name, "resident"),
            unknown_name(f"model on {name!r}", spec.resident, _runs(file.times, name)),
        )
        for name, spec in file.processors.items()
        if spec.resident is not None and spec.resident not in _runs(file.times, name)
    ]


def _express_problems(file: MachineFile) -> list[Problem]:
    express = [name for name, spec in file.processors.items() if spec.overlays]
    if not express:
        return []
    timed = [
        Problem(("times", model, name), "an express processor takes the times of another; remove")
        for model, row in file.times.items()
        for name in row
        if name in express
    ]
    try:
        found = twins(_processor(name, spec) for name, spec in file.processors.items())
    except ConfigurationError as error:
        return [*timed, Problem(("processors",), str(error))]
    return timed + [
        Problem(("processors", name), "an express processor cannot be on one that holds one model")
        for name, twin in found.items()
        if file.processors[name].one_model or file.processors[twin].one_model
    ]


def _runs(times: Mapping[str, Mapping[str, TimesSpec]], processor: str) -> list[str]:
    return [model for model, row in times.items() if processor in row]


def load_machine(path: str | Path) -> Machine:
    """Read a machine.

    Args:
        path: A file, or `lib:NAME` for one of the library.

    Raises:
        ScenarioError: the file cannot be read, is not YAML or does not describe a machine.
        UnknownNameError: the library has no machine of that name.
    """
    path = library.machine_path(path)
    return parse_machine(read_text(path, "machine file"), origin=str(path))


def parse_machine(text: str, *, origin: str = "machine") -> Machine:
    """Read a machine from YAML text.

    Raises:
        ScenarioError: the text is not YAML or not a machine; at most five problems are listed.

    >>> machine = parse_machine('''
    ... processors: {cpu: {}, npu: {one_model: true, load: 100ms}}
    ... times:
    ...   net: {cpu: 20ms, npu: {mean: 2ms, cv: 0.1}}
    ... ''')
    >>> machine.profile.expected_s("net", "npu"), sorted(machine.swaps)
    (0.002, ['npu'])
    """
    document = YamlDocument.parse(text, origin=origin, kind="a machine")
    written = document.data.get("format") if isinstance(document.data, dict) else None
    if str(written).startswith("coinfer-plan/"):
        raise ScenarioError(f"{origin}: that is a plan, and no machine; use --plan with its folder")
    return validated(MachineFile, document).machine()
