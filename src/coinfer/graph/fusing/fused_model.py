"""Fused model: one model that answers for several, and what became of each operator. A value."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from coinfer.errors import ConfigurationError
from coinfer.graph.fusing.apply import apply
from coinfer.graph.fusing.choice import Decision, Form, choose
from coinfer.graph.fusing.costs import Costs, ModelledCosts
from coinfer.graph.fusing.match import match
from coinfer.graph.fusing.member import Member
from coinfer.graph.fusing.site import Sites
from coinfer.graph.saving import save_graph
from coinfer.model import Model, model_from_ir

__all__ = ["FusedModel", "fuse_models"]

_Arrays = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedModel:
    """One model that computes what several did.

    Attributes:
        model: It takes the inputs of all and gives the outputs of all, in the order of the members;
            each name has the member's in front, `tenant/input`.
        members: The models, in the order given.
        decisions: What became of each operator that all of them have.
        apart: How many operators each member has that not all of them have.
        difference: Where the members part, in words; empty if they have one architecture.
    """

    model: Model
    members: tuple[Member, ...]
    decisions: tuple[Decision, ...] = field(repr=False)
    apart: tuple[int, ...]
    difference: str

    def inputs_of(self, feeds: Sequence[_Arrays]) -> dict[str, np.ndarray[Any, Any]]:
        """Bring the inputs of all members together, under the names of the fused model.

        Args:
            feeds: Inputs of each member, in their order, by the names that it has for them.

        Raises:
            ConfigurationError: not as many feeds as members.
        """
        if len(feeds) != len(self.members):
            raise ConfigurationError(
                f"{len(feeds)} feeds for {len(self.members)} fused models; give one for each"
            )
        pairs = zip(self.members, feeds, strict=True)
        return {member.inputs[n]: array for member, feed in pairs for n, array in feed.items()}

    def outputs_of(self, outputs: _Arrays) -> list[dict[str, np.ndarray[Any, Any]]]:
        """Part the outputs of a run by member, under their own names."""
        return [
            {name: outputs[fused] for name, fused in member.outputs.items()}
            for member in self.members
        ]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fused model to an ONNX file, which any ONNX runtime can run.

        Weights of more than 1.5 GiB go to a file beside it.

        Raises:
            OSError: it cannot be written.
        """
        save_graph(self.model.graph, Path(path))

    def counts(self) -> dict[str, Counter[Form]]:
        """Count by type of operator what became of it."""
        found: dict[str, Counter[Form]] = {}
        for decision in self.decisions:
            found.setdefault(decision.op_type, Counter())[decision.form] += 1
        return found


def fuse_models(
    models: Sequence[Model],
    *,
    name: str = "fused",
    same_inputs: Collection[str] = (),
    costs: Costs | None = None,
) -> FusedModel:
    """Fuse models of one architecture into one; see `coinfer.fuse`.

    Args:
        models: At least one; each is known by its name, equal names get a number.
        name: Of the fused model.
        same_inputs: Inputs, as the first model calls them, of which all get the same value in
            every run.
        costs: What operators and changes of layout cost; modelled by default.

    Raises:
        ConfigurationError: no model, or no input is called as in `same_inputs`.
        ModelError: less than half of the operators correspond.
    """
    if not models:
        raise ConfigurationError("nothing to fuse: give at least one model")
    known = [spec.name for spec in models[0].inputs]
    unknown = [each for each in same_inputs if each not in known]
    if unknown:
        raise ConfigurationError(
            f"model {models[0].name!r} has no input {unknown[0]!r}; its inputs: {', '.join(known)}"
        )
    names = distinct([model.name for model in models])
    matched = match(models, names)
    sites = Sites(matched, same_inputs)
    decisions = choose(sites, costs or ModelledCosts())
    applied = apply(sites, decisions)
    members = tuple(
        Member(name=each, inputs=inputs, outputs=outputs)
        for each, inputs, outputs in zip(names, applied.inputs, applied.outputs, strict=True)
    )
    return FusedModel(
        model=model_from_ir(applied.graph, name=name),
        members=members,
        decisions=decisions,
        apart=tuple(map(len, matched.rest)),
        difference=matched.difference,
    )


def distinct(names: Sequence[str]) -> list[str]:
    """Number names that occur more than once.

    >>> distinct(["a", "b", "a"])
    ['a', 'b', 'a-2']
    """
    found: list[str] = []
    for name in names:
        number, new = 1, name
        while new in found or (number > 1 and new in names):
            number += 1
            new = f"{name}-{number}"
        found.append(new)
    return found
