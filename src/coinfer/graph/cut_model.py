"""Cut model: a model with the spans of it that are worth compiling, and their measured times."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from coinfer.machine.profile import Profile
from coinfer.machine.span import Fork, Span
from coinfer.model import Model
from coinfer.plan.choice import Alternative
from coinfer.plan.variant import Unit

__all__ = ["CutModel", "SpanModel"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanModel:
    """One span of a model, ready to be compiled.

    Attributes:
        model: The span as a model of its own: its inputs are what it reads.
        keeps: Names of the values that are still needed after it, whoever made them; after the
            last unit, the outputs of the whole model in their order.
    """

    model: Model
    keeps: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CutModel:
    """A model with the spans that are worth compiling.

    Attributes:
        model: The whole model.
        units: Number of its unit subgraphs; spans count in them.
        pieces: The spans that are used.
        forks: Pairs of them that may run at the same time.
        profile: Measured times of these spans under `model.name`, on the processors that shall
            run them.
        measured: All that was measured of spans of these units, also what is not worth it.
        resident_bytes: Memory that the compiled spans hold together, as measured.
        whole_bytes: Memory that the model would hold uncut on the processors able to run it.
        warnings: What was not possible as asked.
        operators: The operators of each unit; empty for a model that is one unit.
        refused: Spans that must not run where they could, and why.
        spoiling: Processors on which NaN or infinity come out otherwise in a span.
    """

    model: Model
    units: int
    pieces: Mapping[Span, SpanModel]
    profile: Profile
    measured: Profile = field(default_factory=Profile)
    resident_bytes: int = 0
    whole_bytes: int = 0
    warnings: tuple[str, ...] = ()
    forks: tuple[Fork, ...] = ()
    operators: tuple[Unit, ...] = ()
    refused: tuple[Alternative, ...] = ()
    spoiling: frozenset[str] = frozenset()

    @classmethod
    def uncut(cls, model: Model, profile: Profile) -> Self:
        """Return a model as one unit.

        >>> from coinfer.testing.models import tiny_linear
        >>> CutModel.uncut(tiny_linear().model, Profile()).pieces[Span()].keeps
        ('y',)
        """
        keeps = tuple(spec.name for spec in model.outputs)
        pieces = {Span(): SpanModel(model=model, keeps=keeps)}
        return cls(model=model, units=1, pieces=pieces, profile=profile)

    def renamed(self, name: str) -> Self:
        """Copy it, its spans and its profiles under another name of the model."""
        old = self.model.name
        pieces = {
            span: dataclasses.replace(
                piece, model=piece.model.renamed(name + piece.model.name.removeprefix(old))
            )
            for span, piece in self.pieces.items()
        }
        return dataclasses.replace(
            self,
            model=self.model.renamed(name),
            pieces=pieces,
            profile=_renamed(self.profile, name),
            measured=_renamed(self.measured, name),
        )


def _renamed(profile: Profile, name: str) -> Profile:
    return Profile({key._replace(model=name): entry for key, entry in profile})
