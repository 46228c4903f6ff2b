"""Machine: all that is known of the hardware, measured or described. A value; runs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from coinfer.errors import UnknownNameError
from coinfer.machine.cold import Cold
from coinfer.machine.contention import Contention
from coinfer.machine.processor import LEFT_SHARE, Processor, overlaid_units, twins
from coinfer.machine.profile import Profile
from coinfer.machine.submission import Submission
from coinfer.machine.topology import Topology

__all__ = ["Machine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Processors, how long models take on them, and what makes that longer.

    Attributes:
        name: What reports call it.
        processors: In the order of preference. Nothing below speaks of express ones: see
            `equipped`.
        profile: Service times. Several seconds in an entry are a distribution to draw from, one is
            a constant; policies are told the mean. `load_s` counts where a processor swaps.
        spreads: Coefficient of variation by (model, processor): its times are Gamma distributed
            around the mean instead. 1 is exponential.
        swaps: Processors that hold one model: running another one first costs its `load_s`.
        keeps: Processors that hold one model and never change it. A simulation needs at most one
            model of each in the profile: see `holding`.
        contention: How processors that run together slow each other down.
        cold: By (model, processor), how much longer the model takes where another one was the last
            to run on one of the processor's units, or nothing ran. The profile's times are those
            right after itself.
        overhead_s: Seconds by which every execution occupies its processor beyond the service
            time: handing over the work and the result.
        overhead_factors: How many times as long each of several hand-overs took, as measured; one
            is drawn for each execution. Empty: all take equally long.
        submission: What passes between the moment that a request is due and its start, beside a
            free processor. Requests that follow from an answer come at once.
        identity: What measurements depend on beside the processors, by name: the processor's model
            and the versions of the libraries. Empty for a machine that a file describes.
        topology: Its cores and what they share; None: not known.
        shares: By processor, the name of the first one whose sessions it uses, or at least their
            weights, if these are not its own: what is loaded for one is loaded for the other.

    >>> from coinfer.machine.profile import Profile
    >>> cpu = Processor(name="cpu", backend="null", units=frozenset({"core0"}))
    >>> machine = Machine(processors=(cpu,), profile=Profile.from_seconds({"m": {"cpu": 0.01}}))
    >>> machine.models
    ('m',)
    """

    name: str = "machine"
    processors: tuple[Processor, ...]
    profile: Profile
    spreads: Mapping[tuple[str, str], float] = field(default_factory=dict)
    swaps: frozenset[str] = frozenset()
    keeps: frozenset[str] = frozenset()
    contention: Contention = field(default_factory=Contention)
    cold: Mapping[tuple[str, str], Cold] = field(default_factory=dict)
    overhead_s: float = 0.0
    overhead_factors: tuple[float, ...] = ()
    submission: Submission = field(default_factory=Submission)
    identity: Mapping[str, str] = field(default_factory=dict)
    topology: Topology | None = None
    shares: Mapping[str, str] = field(default_factory=dict)

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models that some processor runs."""
        return self.profile.models()

    def holding(self, resident: Mapping[str, str]) -> Machine:
        """Copy it with processors that run one model only, `{processor: model}`."""
        kept = self.profile.where(lambda key: resident.get(key.processor, key.model) == key.model)
        return replace(self, profile=kept)

    def equipped(self) -> Machine:
        """Copy it with all that a simulation must know of its express processors.

        An express processor takes as long as the ordinary one under it, which hardly makes progress
        meanwhile. Processors on other units are not slowed down further: they were slowed down by
        the ordinary one, which now rests.

        Raises:
            ConfigurationError: an express processor stands on no other.
        """
        if not overlaid_units(self.processors):
            return self
        pairs = twins(self.processors)
        entries, factors = dict(self.profile.entries), dict(self.contention.factors)
        spreads, cold = dict(self.spreads), dict(self.cold)
        for express in (p for p in self.processors if p.overlays):
            name, twin = express.name, pairs[express.name]
            entries |= {k._replace(processor=name): e for k, e in self.profile if k[1] == twin}
            spreads |= {(m, name): cv for (m, p), cv in self.spreads.items() if p == twin}
            cold |= {(m, name): each for (m, p), each in self.cold.items() if p == twin}
            under = [p.name for p in self.processors if not express.overlays.isdisjoint(p.units)]
            row = self.contention.factors.get(twin, {})
            alone = {other: factor for other, factor in row.items() if other not in pairs}
            factors[name] = {**alone, **dict.fromkeys(under, 1 / (1 - LEFT_SHARE))}
            for each in under:
                factors[each] = {**factors.get(each, {}), name: 1 / LEFT_SHARE}
        return replace(
            self,
            profile=Profile(entries),
            spreads=spreads,
            cold=cold,
            contention=replace(self.contention, factors=factors),
        )

    def swap_s(self, model: str) -> dict[str, float]:
        """Return the seconds to change to a model, by processor that holds one and changes it."""
        found: dict[str, float] = {}
        for key, entry in self.profile:
            if key.model == model and key.processor in self.swaps:
                found[key.processor] = max(entry.load_s, found.get(key.processor, 0.0))
        return found

    def check_runs(self, models: Sequence[str]) -> None:
        """Verify that it runs these models.

        Raises:
            UnknownNameError: a model that no processor runs.
        """
        for model in models:
            if model not in self.models:
                raise UnknownNameError.of(
                    "model",
                    model,
                    self.models,
                    hint=f"No processor of machine {self.name!r} runs it: give it times there.",
                )
