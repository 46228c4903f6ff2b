"""Wiring: sees that what flows between the stages of an ensemble fits, before any request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from coinfer.ensembles.functions import Functions
from coinfer.ensembles.signature import Signature
from coinfer.errors import CoinferError, ConfigurationError, UnknownNameError
from coinfer.model.specs import TensorSpec
from coinfer.workload.ensemble import EnsembleDescription, Source, Stage

__all__ = ["WiredStage", "wired"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WiredStage:
    """A stage of which it is known what it takes and gives.

    Attributes:
        stage: As it is described.
        function: What is called; None: a model is asked.
        needs_axis: Inputs whose items get a batch axis of one.
        drops_axis: Outputs of which that axis is taken off again.
        outputs: Specs of what the stage gives, results of all items together; None: unknown.
        results: Specs of what one call of the function must return; None: anything.
    """

    stage: Stage
    function: Callable[..., Any] | None
    needs_axis: frozenset[str] = frozenset()
    drops_axis: frozenset[str] = frozenset()
    outputs: Mapping[str, TensorSpec | None]
    results: Mapping[str, TensorSpec | None] = field(default_factory=dict)


def wired(
    ensemble: EnsembleDescription, models: Mapping[str, Signature]
) -> tuple[dict[str, WiredStage], dict[str, TensorSpec]]:
    """See that the stages of an ensemble fit to each other and to the models.

    Returns:
        The stages by name, and the specs of the ensemble's outputs.

    Raises:
        UnknownNameError: it names a model, or an input or output of one, that is not there.
        ConfigurationError: something does not fit; the message names file and stage.
    """
    functions = Functions(ensemble.folder)
    known: dict[Source, TensorSpec | None] = {
        Source("", spec.name): spec for spec in ensemble.input_specs
    }
    stages: dict[str, WiredStage] = {}
    for stage in ensemble.stages:
        where = f"{ensemble.origin}: stage {stage.name!r}"
        try:
            done = _call(stage, functions) if stage.call else _model(stage, models, known)
        except CoinferError as error:
            error.args = (f"{where}: {error}",)
            raise
        stages[stage.name] = done
        known.update({Source(stage.name, name): spec for name, spec in done.outputs.items()})
    outputs = {
        name: _output(ensemble, name, source, known)
        for name, source in ensemble.output_sources.items()
    }
    return stages, outputs


def _output(
    ensemble: EnsembleDescription,
    name: str,
    source: Source,
    known: Mapping[Source, TensorSpec | None],
) -> TensorSpec:
    spec = known.get(source)
    if spec is None:
        given = [each.name for each in known if each.stage == source.stage]
        raise UnknownNameError.of(
            f"output of stage {source.stage!r}", source.name, given, hint=f"See {ensemble.origin}."
        )
    return _renamed(spec, name)


def _call(stage: Stage, functions: Functions) -> WiredStage:
    function = functions.find(stage.call, stage.inputs)
    results = {
        name: None if section is None else section.spec(name)
        for name, section in stage.outputs.items()
    }
    outputs = {
        name: _of_all_items(spec) if spec is not None and stage.each else spec
        for name, spec in results.items()
    }
    return WiredStage(stage=stage, function=function, outputs=outputs, results=results)


def _model(
    stage: Stage, models: Mapping[str, Signature], known: Mapping[Source, TensorSpec | None]
) -> WiredStage:
    if stage.model not in models:
        raise UnknownNameError.of("model", stage.model, models)
    model, whose = models[stage.model], f"model {stage.model!r}"
    missing = sorted(model.required - set(stage.inputs))
    if missing:
        raise ConfigurationError(
            f"{whose} needs the input {missing[0]!r} too; say where it comes from: "
            f"`inputs: {{{missing[0]}: SOURCE}}`"
        )
    needs_axis = set()
    for name, source in stage.sources.items():
        spec = model.input(name, whose)
        if source.stage and source not in known:
            given = [each.name for each in known if each.stage == source.stage]
            raise UnknownNameError.of(f"output of stage {source.stage!r}", source.name, given)
        given_spec = known[source]
        is_item = str(source) == stage.each
        if is_item:
            if given_spec is not None and given_spec.rank_known and not given_spec.shape:
                raise ConfigurationError(f"{source} has no axis, so it has no items")
            given_spec = _item(given_spec)
            if _gets_axis(given_spec, spec, model):
                needs_axis.add(name)
                given_spec = _with_axis(given_spec)
        _check(name, source, given_spec, spec)
    drops_axis = frozenset(
        spec.name for spec in model.outputs if needs_axis and model.gives_batch(spec)
    )
    outputs: dict[str, TensorSpec | None] = {}
    for spec in model.outputs:
        one = _item(spec) if spec.name in drops_axis else spec
        outputs[spec.name] = _of_all_items(one) if stage.each and one is not None else one
    return WiredStage(
        stage=stage,
        function=None,
        needs_axis=frozenset(needs_axis),
        drops_axis=drops_axis,
        outputs=outputs,
    )


def _check(name: str, source: Source, given: TensorSpec | None, taken: TensorSpec) -> None:
    """See that a value fits to an input, as far as both are known.

    Raises:
        ConfigurationError: it never does.
    """
    if given is None:
        return
    fits = given.dtype == taken.dtype
    if given.rank_known and taken.rank_known:
        fits = fits and len(given.shape) == len(taken.shape)
        fits = fits and all(
            one == other or not (isinstance(one, int) and isinstance(other, int))
            for one, other in zip(given.shape, taken.shape, strict=False)
        )
    if not fits:
        raise ConfigurationError(
            f"input {name!r} takes {taken.layout}, but {source} is {given.layout}; put a step "
            "between them that converts it"
        )


def _gets_axis(item: TensorSpec | None, taken: TensorSpec, model: Signature) -> bool:
    """Tell whether an item is one sample, of which the model takes a batch."""
    if not model.is_batch_of(taken):
        return False
    return item is None or not item.rank_known or len(item.shape) + 1 == len(taken.shape)


def _item(spec: TensorSpec | None) -> TensorSpec | None:
    """Return the spec of one of the items that an array of this spec has."""
    return None if spec is None else _shaped(spec, spec.shape[1:])


def _with_axis(spec: TensorSpec | None) -> TensorSpec | None:
    return None if spec is None else _shaped(spec, (1, *spec.shape))


def _of_all_items(spec: TensorSpec) -> TensorSpec:
    return _shaped(spec, (None, *spec.shape) if spec.rank_known else ())


def _shaped(spec: TensorSpec, shape: tuple[int | str | None, ...]) -> TensorSpec:
    return TensorSpec(name=spec.name, dtype=spec.dtype, shape=shape, rank_known=spec.rank_known)


def _renamed(spec: TensorSpec, name: str) -> TensorSpec:
    return TensorSpec(name=name, dtype=spec.dtype, shape=spec.shape, rank_known=spec.rank_known)
