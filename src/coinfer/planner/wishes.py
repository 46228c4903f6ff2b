"""Wishes: what whoever asks for a plan wants of it. A value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from coinfer.graph.partition_options import PartitionOptions
from coinfer.plan.plan import PolicyChoice
from coinfer.planner.assignment import Pairs
from coinfer.planner.columns import Demand
from coinfer.workload.agreement_spec import AgreementSpec
from coinfer.workload.batch_spec import BatchSpec
from coinfer.workload.fuse_spec import FuseSpec
from coinfer.workload.processor_spec import Preempt
from coinfer.workload.scenario import Scenario
from coinfer.workload.variants_spec import VariantsSpec

__all__ = ["CutWish", "Wishes"]


class CutWish(NamedTuple):
    """How a model is to be cut.

    Attributes:
        options: Where it may be cut.
        search: Find the minimum subgraph size per processor instead of taking that of the options.
    """

    options: PartitionOptions
    search: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What a plan is to be like.

    Attributes:
        name: What the plan is called.
        policy: Which policy decides; `auto`: the best one for `scenario`.
        scenario: The load that the policy is chosen for.
        batches: Samples per request, by model; 1 for those not named.
        riders: How requests may share executions, by model; those not named as `BatchSpec` says.
        fuse: Which models may be answered by one run of a fused network.
        dims: Sizes of open dimensions by name, for models without samples.
        cuts: How models are cut; those not named run whole.
        allow: Precisions below fp32 that are allowed.
        tolerance: Largest output error below fp32.
        agreement: How near outputs in fp32 must be to those of the reference.
        variants: Cheaper variants beside models, by model; those not named have none.
        random: Models whose samples are random, though they are given.
        keep_all: Load models on every processor that runs them: none is superfluous.
        asked: (model, processor) pairs that are loaded in any case.
        surroundings: Measure also what a simulation needs: contention, cold starts, hand-over.
        preempt: Whether express processors are kept; `auto`: where they pay.
        is_urgent: Whether requests differ in urgency, by deadlines or priorities; None: nobody
            knows.
        sources: Where models come from, by name: a path or `zoo:NAME`.
        memory: Bytes for what is loaded, by name of the memory; those not named are not limited.
        pinned: Models that are never evicted.
        demand: At what rates and with what deadlines models will be asked for, as far as known.
    """

    name: str = "plan"
    policy: PolicyChoice = field(default_factory=PolicyChoice)
    scenario: Scenario | None = None
    batches: Mapping[str, int] = field(default_factory=dict)
    riders: Mapping[str, BatchSpec] = field(default_factory=dict)
    fuse: FuseSpec = "auto"
    dims: Mapping[str, int] = field(default_factory=dict)
    cuts: Mapping[str, CutWish] = field(default_factory=dict)
    allow: tuple[str, ...] = ()
    tolerance: float = math.inf
    agreement: AgreementSpec = AgreementSpec()
    variants: Mapping[str, VariantsSpec] = field(default_factory=dict)
    random: frozenset[str] = frozenset()
    keep_all: bool = False
    asked: Pairs = frozenset()
    surroundings: bool = False
    preempt: Preempt = "auto"
    is_urgent: bool | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    memory: Mapping[str, int] = field(default_factory=dict)
    pinned: tuple[str, ...] = ()
    demand: Demand = field(default_factory=Demand)
