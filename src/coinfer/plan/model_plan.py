"""Model plan: where a model comes from, its variants, and why they are as they are. A value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from coinfer.machine.batching import Batching
from coinfer.plan.choice import Choice
from coinfer.plan.variant import Kind, Variant
from coinfer.plan.work import Work

__all__ = ["ModelPlan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPlan:
    """What was decided of one model.

    Attributes:
        source: The path of an ONNX file or `zoo:NAME`; empty if the model was made in memory, or if
            a file describes the machine and no model is needed.
        fingerprint: The model's identity, structure and weights; empty if it is not known.
        batch: Samples per request that the times were measured at; 1 if the batch is fixed.
        fixed_batch: Whether the model leaves no batch size open. A request to it is one run,
            however many samples that has.
        filling: Samples of the batch that the file fixes, where runs of any number of samples are
            filled up to so many; 0: they are not.
        batching: How far its requests may share executions; None: each is a run of its own.
        padding: By open dimension along which requests are padded to share runs, what each input
            that has it is padded with.
        sizes: Sizes of its other open dimensions, by name, that it was measured at: the smallest
            sample first.
        work: How the work grows with these; None: the model has no other open dimensions.
        variants: By kind.
        choices: What the passes decided, in their order.
    """

    source: str = ""
    fingerprint: str = ""
    batch: int = 1
    fixed_batch: bool = False
    filling: int = 0
    batching: Batching | None = None
    padding: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    sizes: tuple[Mapping[str, int], ...] = ()
    work: Work | None = None
    variants: Mapping[Kind, Variant] = field(default_factory=dict)
    choices: tuple[Choice, ...] = ()

    @property
    def original(self) -> Variant:
        """The variant that is the model itself."""
        return self.variants[Kind.ORIGINAL]

    @property
    def is_cut(self) -> bool:
        """Whether it is in several units."""
        return self.original.n_units > 1
