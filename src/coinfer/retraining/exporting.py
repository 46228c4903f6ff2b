"""Exporting: an ONNX model of a torch module, by torch's exporter, checked against the module."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from coinfer.backends.loading import load
from coinfer.backends.registry import get_backend
from coinfer.errors import InputError, ModelError, first_line
from coinfer.model import Model, model_from_ir
from coinfer.profiling.error import relative_error
from coinfer.profiling.reference import REFERENCE
from coinfer.quiet import quiet
from coinfer.retraining.library import the_exporter, torch
from coinfer.retraining.module_layers import as_arguments, evaluating

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

__all__ = ["exported"]

_MOST_OFF = 1e-4
"""Both compute in fp32, but add in another order."""


def exported(
    module: Module,
    sample: Tensor | tuple[Tensor, ...],
    *,
    name: str,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
) -> Model:
    """Return a module as a model whose batch is open; `Model.to_bytes` gives the file.

    What onnxruntime makes of the sample is compared with what torch makes of it.

    Args:
        module: It is evaluated, and stays in its mode.
        sample: One tensor, or all positional arguments; the first axis of each is the batch.
        name: Of the model.
        inputs: Names of the inputs; None: those of the arguments of `forward`.
        outputs: Names of the outputs; None: the exporter's.

    Raises:
        ConfigurationError: torch or onnxscript is not installed.
        InputError: an argument is a single number, and has no batch.
        ModelError: torch cannot export it, or the result computes something else.
    """
    arguments = as_arguments(sample)
    for at, each in enumerate(arguments):
        if not each.ndim:
            raise InputError(
                f"module {type(module).__name__}: argument {at} of the sample is a single number, "
                "and the first axis must be the batch; make it a part of the module, or repeat it "
                "for each sample"
            )
    onnx, dim = the_exporter(), torch().export.Dim
    # An example of batch 1 would make the exporter take 1 for a constant.
    two = tuple(torch().cat([each[:1], each[:1]]) for each in arguments)
    batch = dim("batch")
    shapes: tuple[Any, ...] = tuple({0: batch} for _ in two)
    first = next(iter(inspect.signature(module.forward).parameters.values()), None)
    if first is not None and first.kind is first.VAR_POSITIONAL:  # one argument to the exporter
        shapes = (shapes,)
    with evaluating(module), quiet("torch.onnx", logging.ERROR):
        expected = module(*arguments)
        try:
            program = onnx.export(
                module,
                two,
                input_names=inputs,
                output_names=outputs,
                dynamic_shapes=shapes,
                dynamo=True,
                verbose=False,
            )
        except Exception as error:
            raise ModelError(
                f"module {type(module).__name__} cannot be exported: {first_line(error)}"
            ) from error
    model = model_from_ir(program.model, name=name)
    _check(model, arguments, expected)
    return model


def _check(model: Model, arguments: Sequence[Tensor], expected: Any) -> None:
    wanted = tuple(expected) if isinstance(expected, tuple | list) else (expected,)
    names = [spec.name for spec in model.inputs]
    is_comparable = all(isinstance(each, torch().Tensor) for each in wanted)
    if not is_comparable or (len(names), len(model.outputs)) != (len(arguments), len(wanted)):
        raise ModelError(
            f"module {model.name!r} cannot be compared with its export: it must use all its "
            "arguments and give one tensor or a tuple of tensors"
        )
    if any(each.dtype == torch().bfloat16 for each in (*arguments, *wanted)):
        raise ModelError(f"module {model.name!r} computes in bfloat16; export it as `.float()`")
    feed = {key: each.cpu().numpy() for key, each in zip(names, arguments, strict=True)}
    with closing(load(get_backend(REFERENCE.backend), model, REFERENCE)) as session:
        made = session.run(feed)
    reference = {
        spec.name: each.cpu().numpy() for spec, each in zip(model.outputs, wanted, strict=True)
    }
    off = relative_error([made], [reference])
    if off > _MOST_OFF:
        raise ModelError(
            f"module {model.name!r} was exported, but onnxruntime is off by {off:.3g} of what "
            "torch computes; its operators are not those of the module"
        )
