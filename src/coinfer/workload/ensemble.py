"""Ensemble: models and steps that answer one request together, as a file describes them. A value.

It knows neither the models nor what they give; `coinfer.ensembles` sees that they fit, and runs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    PrivateAttr,
    StringConstraints,
    ValidationInfo,
    model_validator,
)

from coinfer.documents.fields import (
    Name,
    Problem,
    Section,
    base_of,
    raise_all,
    shown,
    unknown_name,
    wrong,
)
from coinfer.errors import InputError
from coinfer.model.datatypes import dtype_of
from coinfer.model.specs import TensorSpec

__all__ = ["EnsembleDescription", "Source", "Stage", "TensorSection", "source_of"]


class Source(NamedTuple):
    """Where a value comes from.

    Attributes:
        stage: The stage that gives it; empty: it is an input of the ensemble.
        name: Of the stage's output, or of the input.
    """

    stage: str
    name: str

    def __str__(self) -> str:
        return f"{self.stage}.{self.name}" if self.stage else self.name


def source_of(text: str) -> Source:
    """Read where a value comes from: `INPUT`, or `STAGE.OUTPUT`.

    >>> source_of("image"), source_of("detector.boxes")
    (Source(stage='', name='image'), Source(stage='detector', name='boxes'))
    """
    stage, point, name = text.partition(".")
    return Source(stage, name) if point else Source("", text)


def _datatype(value: Any) -> Any:
    try:
        dtype_of(value)
    except InputError as error:
        raise wrong(str(error)) from error
    return value


def _dim(value: Any) -> int | str | None:
    match value:
        case bool():
            pass
        case None | -1:
            return None
        case int() if value >= 1:
            return value
        case str() if value.isidentifier():
            return value
    raise wrong(f"expected a size from 1, a symbol such as N, or -1 for any, got {shown(value)}")


def _call(value: str) -> str:
    module, _, function = value.partition(":")
    if not (module.isidentifier() and function.isidentifier()):
        raise wrong(
            f"expected MODULE:FUNCTION, such as steps:crop for `crop` of steps.py beside this "
            f"file, got {shown(value)}"
        )
    return value


def _named(value: Any) -> Any:
    """Outputs may be a list of names, of which nothing else is known."""
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return dict.fromkeys(value)
    return value


_Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_\-]*$")]
"""A name without a point, which stands between a stage and its output."""

_Text = Annotated[str, Field(min_length=1)]


class TensorSection(Section):
    """Element type and shape of a tensor.

    Attributes:
        datatype: As the Open Inference Protocol calls it, e.g. `FP32`.
        shape: Per axis a size, a symbol (equal symbols are equal sizes), or None for any size.
    """

    datatype: Annotated[str, BeforeValidator(_datatype)]
    shape: tuple[Annotated[int | str | None, PlainValidator(_dim)], ...]

    def spec(self, name: str) -> TensorSpec:
        """Return it as the spec of a tensor of this name."""
        return TensorSpec(name=name, dtype=dtype_of(self.datatype), shape=self.shape)


class Stage(Section):
    """One step on the way: a request to a model, or a call of a Python function.

    Attributes:
        name: What the other stages call it.
        model: The model that is asked; empty: none.
        call: `MODULE:FUNCTION`, of a module beside the file; empty: none.
        inputs: By input of the model, or argument of the function, where its value comes from.
        each: The source of several items, if the stage is done once for each of them; an input of
            this source gets one item at a time.
        outputs: What the function returns, by name; None: nothing is known of it. A model's outputs
            are known from the model.
    """

    name: _Label
    model: str = ""
    call: Annotated[str, AfterValidator(lambda value: value and _call(value))] = ""
    inputs: Annotated[dict[_Text, _Text], Field(min_length=1)]
    each: str = ""
    outputs: Annotated[dict[_Label, TensorSection | None], BeforeValidator(_named)] = Field(
        default_factory=dict
    )

    @model_validator(mode="after")
    def _is_one_thing(self) -> Stage:
        raise_all([Problem((), text) for text in self._faults()])
        return self

    def _faults(self) -> Iterator[str]:
        where = f"stage {self.name!r}"
        if bool(self.model) == bool(self.call):
            both = "both `model` and `call`" if self.model else "neither `model` nor `call`"
            yield f"{where} has {both}; give one of them"
        elif self.model and self.outputs:
            yield f"{where}: the outputs of a model are known from it; remove `outputs`"
        elif self.call and not self.outputs:
            yield f"{where}: name what the function returns, e.g. `outputs: [crops]`"
        if self.each and self.each not in self.inputs.values():
            yield (
                f"{where}: no input takes the items of `each`; give one the source {self.each!r}, "
                "or remove `each`"
            )

    @property
    def sources(self) -> dict[str, Source]:
        """Where the value of each input comes from."""
        return {name: source_of(text) for name, text in self.inputs.items()}

    @property
    def after(self) -> frozenset[str]:
        """The stages that it waits for."""
        return frozenset(source.stage for source in self.sources.values() if source.stage)


class EnsembleDescription(Section):
    """A pipeline of models as a graph without cycles: what comes in, the stages, what goes out.

    Attributes:
        name: What it is called.
        inputs: What a request gives, by name.
        stages: In an order in which each stands behind those that it waits for.
        outputs: What a request gets, by name, and where that comes from.

    >>> from coinfer.workload.ensemble_file import parse_ensemble
    >>> found = parse_ensemble('''
    ... ensemble: twice
    ... inputs: {x: {datatype: FP32, shape: [N, 4]}}
    ... stages:
    ...   - {name: first, model: net, inputs: {x: x}}
    ...   - {name: then, model: net, inputs: {x: first.y}}
    ... outputs: {y: then.y}
    ... ''')
    >>> found.name, found.models, str(found.input_specs[0])
    ('twice', ('net',), 'x: float32[N,4]')
    """

    name: Name = Field(alias="ensemble")
    inputs: Annotated[dict[_Label, TensorSection], Field(min_length=1)]
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    outputs: Annotated[dict[_Label, _Text], Field(min_length=1)]
    _folder: Path = PrivateAttr(default=Path())
    _origin: str = PrivateAttr(default="ensemble")

    @model_validator(mode="after")
    def _fits_together(self, info: ValidationInfo) -> EnsembleDescription:
        raise_all([*_source_problems(self), *_use_problems(self), *_output_problems(self)])
        self._folder = base_of(info)
        return self

    @property
    def folder(self) -> Path:
        """Where the modules of the functions are."""
        return self._folder

    @property
    def origin(self) -> str:
        """What errors call the file."""
        return self._origin

    def read_from(self, origin: str) -> EnsembleDescription:
        """Copy it with what errors call the file."""
        copy = self.model_copy()
        copy._origin = origin
        return copy

    @property
    def models(self) -> tuple[str, ...]:
        """The models that it asks, each once."""
        return tuple(dict.fromkeys(stage.model for stage in self.stages if stage.model))

    @property
    def input_specs(self) -> tuple[TensorSpec, ...]:
        """Specs of the inputs."""
        return tuple(section.spec(name) for name, section in self.inputs.items())

    @property
    def output_sources(self) -> dict[str, Source]:
        """Where each output comes from."""
        return {name: source_of(text) for name, text in self.outputs.items()}


def _source_problems(ensemble: EnsembleDescription) -> Iterator[Problem]:
    """Every source must be an input, or an output of a stage that stands before."""
    everywhere = [stage.name for stage in ensemble.stages]
    before: dict[str, Stage] = {}
    for at, stage in enumerate(ensemble.stages):
        if stage.name in before:
            text = f"stage {stage.name!r} is there twice; give one of them another name"
            yield Problem(("stages", at, "name"), text)
        for name, text in stage.inputs.items():
            fault = _fault_of(source_of(text), ensemble.inputs, before, everywhere)
            if fault:
                yield Problem(("stages", at, "inputs", name), f"stage {stage.name!r}: {fault}")
        before[stage.name] = stage
    for name, text in ensemble.outputs.items():
        fault = _fault_of(source_of(text), ensemble.inputs, before, everywhere)
        if fault:
            yield Problem(("outputs", name), fault)


def _fault_of(
    source: Source, inputs: Iterable[str], before: dict[str, Stage], everywhere: list[str]
) -> str:
    """Say what is wrong with a source; empty if nothing is."""
    if not source.stage:
        if source.name in inputs:
            return ""
        if source.name in everywhere:
            return f"name an output of stage {source.name!r}, e.g. `{source.name}.NAME`"
        return unknown_name("input", source.name, inputs)
    if source.stage not in before:
        if source.stage in everywhere:
            return f"stage {source.stage!r} does not stand before it; move that up"
        return unknown_name("stage", source.stage, before)
    stage = before[source.stage]
    if stage.call and source.name not in stage.outputs:
        return unknown_name(f"output of stage {stage.name!r}", source.name, stage.outputs)
    return ""


def _use_problems(ensemble: EnsembleDescription) -> Iterator[Problem]:
    """What nobody reads would be computed for nothing, and is most likely a slip."""
    used = {source.stage for source in ensemble.output_sources.values()}
    used.update(*(stage.after for stage in ensemble.stages))
    for at, stage in enumerate(ensemble.stages):
        if stage.name not in used:
            text = f"nothing reads an output of stage {stage.name!r}; use one, or remove the stage"
            yield Problem(("stages", at, "name"), text)


def _output_problems(ensemble: EnsembleDescription) -> Iterator[Problem]:
    """Clients must be told what they get."""
    stages = {stage.name: stage for stage in ensemble.stages}
    for name, source in ensemble.output_sources.items():
        stage = stages.get(source.stage)
        if stage is not None and stage.call and stage.outputs.get(source.name) is None:
            yield Problem(
                ("outputs", name),
                f"{source} goes out of the ensemble, so say what it is: `outputs: {{{source.name}: "
                f"{{datatype: FP32, shape: [N]}}}}` in stage {stage.name!r}",
            )
