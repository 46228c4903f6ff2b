"""Wishes of an engine by model: cheaper variants, and how requests share executions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from coinfer.errors import ConfigurationError, UnknownNameError
from coinfer.runtime.arguments import shown
from coinfer.workload.batch_spec import BatchSpec
from coinfer.workload.fuse_spec import FuseSpec, unknown_member
from coinfer.workload.variants_spec import VariantsSpec

__all__ = ["Batch", "Variants", "batches_of", "check_wishes", "variants_of"]

Variants = VariantsSpec | Mapping[str, Any] | str
"""Which cheaper variants there are, and when they serve, see `VariantsSpec`."""

Batch = BatchSpec | Mapping[str, Any] | str
"""How requests may share executions, see `BatchSpec`."""


def check_wishes(
    models: object,
    batch: Batch | Mapping[str, Batch],
    variants: Variants | Mapping[str, Variants] | None,
    fuse: FuseSpec,
    *,
    is_profiled: bool,
) -> None:
    """Refuse wishes that make no sense before anything is measured.

    Args:
        models: Models by name; anything else is a plan or where one is.
        batch: How requests may share executions.
        variants: Which cheaper variants there are.
        fuse: Which models may be fused.
        is_profiled: Whether times are given, so that nothing is measured.

    Raises:
        UnknownNameError: they name a model that is not there.
        ConfigurationError: they are no such wishes, or would have to be measured.
    """
    asked = [*batches_of(batch, ()), *variants_of(variants, ())]
    if not isinstance(models, Mapping):
        if variants is not None:
            raise _made_while_planning()
        return
    for name in asked:
        if name not in models:
            raise UnknownNameError.of("model", name, models)
    if variants is not None and is_profiled:
        raise _made_while_planning()
    stranger = unknown_member(fuse, models)
    if stranger is not None:
        raise UnknownNameError.of("model", stranger, models)
    if is_profiled and not isinstance(fuse, str):
        raise ConfigurationError(
            "fused networks must be measured; leave the profile out, or `fuse`"
        )


def _made_while_planning() -> ConfigurationError:
    return ConfigurationError(
        "variants are made and measured while planning; leave `variants` out where a plan or a "
        "profile is given"
    )


def variants_of(
    variants: Variants | Mapping[str, Variants] | None, models: Iterable[str]
) -> Mapping[str, VariantsSpec]:
    """Return which variants are wished, by model.

    Raises:
        ConfigurationError: it is no such wish.
    """
    if variants is None:
        return {}
    if isinstance(variants, VariantsSpec | str):
        return dict.fromkeys(models, VariantsSpec.of(variants))
    fields = VariantsSpec.model_fields.keys()
    if not isinstance(variants, Mapping) or fields & variants.keys():  # type: ignore[redundant-expr]
        return dict.fromkeys(models, VariantsSpec.of(variants))
    return {name: VariantsSpec.of(each) for name, each in variants.items()}


def batches_of(
    batch: Batch | Mapping[str, Batch], models: Iterable[str]
) -> Mapping[str, BatchSpec]:
    """Return how requests may share executions, by model.

    Raises:
        ConfigurationError: it is no such wish.
    """
    if isinstance(batch, BatchSpec | str):
        return dict.fromkeys(models, BatchSpec.of(batch))
    if not isinstance(batch, Mapping):
        raise _no_batch(batch)
    if {"max", "max_delay", "pad"} & batch.keys():
        return dict.fromkeys(models, _one(batch))
    return {name: _one(each) for name, each in batch.items()}


def _one(batch: object) -> BatchSpec:
    """Return how requests of a model may share executions; they bring their own samples."""
    if isinstance(batch, BatchSpec | str) or (
        isinstance(batch, Mapping) and "samples" not in batch
    ):
        return BatchSpec.of(batch)
    raise _no_batch(batch)


def _no_batch(batch: object) -> ConfigurationError:
    return ConfigurationError(
        f"batch is {shown(batch)}; requests bring their own samples: write 'auto', 'off', or e.g. "
        "{'max': 16, 'max_delay': '2ms'}"
    )
