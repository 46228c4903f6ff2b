"""Span profiler: extracts, compiles and measures spans of one model, and chooses among them.

It remembers what came of a span whatever the cuts. Where to cut is for `prepare` to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from coinfer.backends.base import Backend, Tensors, weights_key
from coinfer.errors import BackendError
from coinfer.graph.cut_model import CutModel, SpanModel
from coinfer.graph.extract import extract, kept_after
from coinfer.graph.operators import Operators
from coinfer.graph.partition import Partition
from coinfer.graph.shares import costs_by_operator, operator_shares
from coinfer.graph.span_choice import forks_on, machine_states, plan, worthwhile
from coinfer.graph.span_times import SpanTimes, Table
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.machine.span import Fork, Span, all_spans
from coinfer.model import Model
from coinfer.plan.choice import Alternative
from coinfer.plan.variant import Unit
from coinfer.planner.border_values import Samples
from coinfer.planner.columns import has_widths
from coinfer.planner.useful import wanted
from coinfer.profiling import Profiler, Skip
from coinfer.profiling.agreement import refusals, with_errors
from coinfer.profiling.error import too_imprecise
from coinfer.profiling.narrow_operators import NarrowOperators
from coinfer.units import format_seconds
from coinfer.workload.agreement_spec import AgreementSpec

__all__ = ["A_LITTLE_LONGER", "SpanProfiler"]

A_LITTLE_LONGER = 1.1
"""A span may take this many times the limit: the next measurement would say something else."""

_Entries = dict[tuple[Span, str], Measurement]


@dataclass(slots=True, kw_only=True)
class SpanProfiler:
    """Measures spans of one model, and remembers what came of it, whatever the cuts."""

    model: Model
    processors: Sequence[Processor]
    backends: Mapping[str, Backend]
    profiler: Profiler
    batch: int
    tolerance: float
    agreement: AgreementSpec
    feeds: Sequence[Tensors]
    operators: Operators
    narrow: NarrowOperators = field(default_factory=NarrowOperators)
    times: SpanTimes = field(init=False)
    found: dict[tuple[str, tuple[int, ...]], Measurement] = field(default_factory=dict)
    problems: dict[str, None] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    spoiling: set[str] = field(default_factory=set)
    _pieces: dict[tuple[int, ...], Model] = field(default_factory=dict)
    _samples: tuple[Partition, Samples] | None = None

    def __post_init__(self) -> None:
        """Guess each operator's share of the time."""
        shares = operator_shares(
            self.operators,
            costs_by_operator(self.model, self.model.input_check.sizes_of(self.feeds[0])),
        )
        self.times = SpanTimes(shares)
        self._note_narrow()

    def _note_narrow(self) -> None:
        """Note which operators must not run where, processors with the same ones together."""
        places: dict[tuple[str, str], list[str]] = {}
        for name, reasons in self.narrow.by_processor.items():
            for why in dict.fromkeys(reasons.values()):
                types = {self.operators[i].op_type for i in reasons if reasons[i] == why}
                places.setdefault((", ".join(sorted(types)), why), []).append(name)
        for (kinds, why), names in places.items():
            where = ", ".join(names)
            self.problems[f"{kinds} of {self.model.name} does not run on {where}: {why}"] = None
            self.refused[f"{kinds} on {where}"] = why

    def settle(self, partition: Partition, *, spare: bool) -> set[tuple[Span, str]]:
        """Choose spans and measure them, until nothing that is chosen is unknown.

        State by state of the machine: what was measured for one makes the estimates for the next
        ones right, so that little is measured in vain. Where there are widths between one core and
        all, two processors of each kind stand for the others, and what is worth it on one of them
        is measured on every width: how wide a span runs is decided at its start.
        """
        chosen: set[tuple[Span, str]] = set()
        forks, is_wide = partition.forks, has_widths(self.processors)
        looked_at = _two_of_each(self.processors) if is_wide else self.processors
        for states in range(1, len(machine_states(looked_at, 1.0)) + 1):
            while True:
                table = self.table(partition, spare=spare, processors=looked_at)
                chosen = worthwhile(
                    table,
                    len(partition.units),
                    looked_at,
                    forks=forks,
                    most_states=states,
                )
                if is_wide:
                    chosen |= self._least_work(partition, table)
                    chosen = self._on_all_widths(partition, chosen, table)
                unknown = [
                    (span, name)
                    for span, name in sorted(chosen)
                    if (name, partition.members(span)) not in self.found
                ]
                if not unknown:
                    break
                self.measure(partition, unknown)  # each is known afterwards, or refused
        if not chosen:
            raise BackendError(self.nothing_runs())
        return chosen

    def table(
        self, partition: Partition, *, spare: bool, processors: Sequence[Processor] = ()
    ) -> Table:
        """Return the seconds of all spans, perhaps without processors that are superfluous.

        Args:
            partition: The spans.
            spare: Keep processors that others make superfluous.
            processors: Those that are looked at; empty: all.
        """
        table = self.times.table(partition)
        looked_at = processors or self.processors
        if spare:
            names = {processor.name for processor in looked_at}
            return {
                span: {n: s for n, s in row.items() if n in names} for span, row in table.items()
            }
        return {
            span: {name: row[name] for name in wanted(row, looked_at)}
            for span, row in table.items()
        }

    def _least_work(self, partition: Partition, table: Table) -> set[tuple[Span, str]]:
        """Return the chain of the fewest core-seconds: what a machine under load wants."""
        cores = {p.name: len(p.units) for p in self.processors}
        work = {span: {n: s * cores[n] for n, s in row.items()} for span, row in table.items()}
        return set(plan(work, len(partition.units))[0])

    def _on_all_widths(
        self, partition: Partition, chosen: Iterable[tuple[Span, str]], table: Table
    ) -> set[tuple[Span, str]]:
        """Return what was chosen, each span on all processors that are as those in the table."""
        kinds = {p.name: p.likeness for p in self.processors}
        found = set()
        for span in {span for span, _ in chosen}:
            worth = {kinds[name] for name in table.get(span, {})}
            able = partition.spans[span]
            found |= {(span, n) for n, kind in kinds.items() if n in able and kind in worth}
        return found

    def longest_s(self, partition: Partition, chosen: Iterable[tuple[Span, str]]) -> float:
        """Return what the longest span of several operators takes, in seconds; 0: none has."""
        pairs = [(name, partition.members(span)) for span, name in chosen]
        return max(
            (self.found[name, members].mean_s for name, members in pairs if len(members) > 1),
            default=0.0,
        )

    def note_too_long(self, longest_s: float, max_span_s: float) -> None:
        """Note that a span takes longer than was asked for, if one does."""
        if longest_s > A_LITTLE_LONGER * max_span_s:
            self.problems[
                f"the longest span of {self.model.name} takes {format_seconds(longest_s)}, more "
                f"than the {format_seconds(max_span_s)} that were asked for"
            ] = None

    def measure(self, partition: Partition, runs: Iterable[tuple[Span, str]]) -> None:
        """Compile and measure spans; those that do not run are noted as such.

        Once the budget is spent, what is known of a processor tells what its spans take there.
        """
        by_span: dict[Span, list[Processor]] = {}
        for span, name in runs:
            kind = next(p.likeness for p in self.processors if p.name == name)
            able = partition.spans[span]
            # Equal processors share one measurement: note it for all of them.
            twins = [p for p in self.processors if p.name in able and p.likeness == kind]
            known = by_span.setdefault(span, [])
            known += [p for p in twins if p not in known]
        for span, processors in by_span.items():
            members = partition.members(span)
            skips: list[Skip] = []
            piece = self.piece(partition, span)
            expected = self.times.row(partition, span) if self.profiler.budget.is_spent else {}
            is_run = any(processor.name not in expected for processor in processors)
            profile = self.profiler.profile(
                {piece.name: piece},
                processors,
                batch=self.batch,
                feeds={piece.name: self._feeds_of(partition, span, is_run=is_run)},
                skipped=skips.append,
                expected={piece.name: expected},
            )
            for skip in skips:
                self._refuse(skip.processor, members, skip.reason)
            profile = self._agreeing(partition, span, profile)
            for key, measurement in profile:
                self._note(key.processor, members, piece.name, measurement)

    def piece(self, partition: Partition, span: Span) -> Model:
        """Return a span as a model of its own; each is extracted once."""
        members = partition.members(span)
        if members not in self._pieces:
            self._pieces[members] = extract(self.model, partition, span)
        return self._pieces[members]

    def finished(self, partition: Partition, chosen: set[tuple[Span, str]]) -> CutModel:
        """Return what was chosen; a model of which only the whole is, as one unit."""
        entries = {(span, name): self.found[name, partition.members(span)] for span, name in chosen}
        measured = self._measured(partition)
        wholes = {pair: entry for pair, entry in measured.items() if pair[0] == partition.whole}
        units = len(partition.units)
        pieces = {span: self._piece(partition, span) for span in sorted({s for s, _ in chosen})}
        if pieces.keys() == {partition.whole}:
            units, pieces = 1, {Span(): pieces[partition.whole]}
            entries, measured = _as_one_unit(entries), _as_one_unit(wholes)
        used = {name for _, name in chosen}
        return CutModel(
            model=self.model,
            units=units,
            pieces=pieces,
            forks=self._forks(partition, chosen) if units > 1 else (),
            profile=self._profile(entries),
            measured=self._profile(measured),
            resident_bytes=self._resident_bytes(entries),
            whole_bytes=self._resident_bytes({k: e for k, e in wholes.items() if k[1] in used}),
            warnings=(*self.problems, *self._haste(measured)),
            operators=_named_units(partition) if units > 1 else (),
            refused=tuple(Alternative(*each) for each in self.refused.items()),
            spoiling=frozenset(self.spoiling & used),
        )

    def nothing_runs(self) -> str:
        """Say that no chain of spans reaches the end, and what was found out about why."""
        reasons = "; ".join(self.problems) or "no span that is allowed covers a part of it"
        return f"no processors run all of model {self.model.name!r} together: {reasons}"

    def _piece(self, partition: Partition, span: Span) -> SpanModel:
        keeps = kept_after(self.model, partition, span)
        return SpanModel(model=self.piece(partition, span), keeps=keeps)

    def _forks(self, partition: Partition, chosen: set[tuple[Span, str]]) -> tuple[Fork, ...]:
        """Return the forks that can be taken with what was chosen."""
        able = forks_on(partition.forks, self.processors)
        return tuple(
            fork
            for fork in partition.forks
            for right, pairs in able.get(fork.left, ())
            if right == fork.right
            and any((fork.left, p) in chosen and (right, q) in chosen for p, q in pairs)
        )

    def _measured(self, partition: Partition) -> _Entries:
        """Return all that was measured and is a span of these units."""
        spans = all_spans(len(partition.units))
        by_members = {partition.members(span): span for span in spans}
        return {
            (by_members[members], name): entry
            for (name, members), entry in self.found.items()
            if members in by_members
        }

    def _profile(self, entries: _Entries) -> Profile:
        batch = self.batch if self.model.batch_symbol is not None else 1
        order = {processor.name: at for at, processor in enumerate(self.processors)}
        ordered = sorted(entries, key=lambda pair: (pair[0], order[pair[1]]))
        name = self.model.name
        return Profile({ProfileKey(name, p, batch, span): entries[span, p] for span, p in ordered})

    def _note(
        self, name: str, members: tuple[int, ...], piece: str, measurement: Measurement
    ) -> None:
        processor = next(p for p in self.processors if p.name == name)
        reason = too_imprecise(piece, processor, measurement.error, self.tolerance)
        if reason is not None:
            self._refuse(name, members, reason)
            return
        self.found[name, members] = measurement
        if not measurement.estimated:
            self.times.note(name, members, measurement.mean_s)

    def _agreeing(self, partition: Partition, span: Span, profile: Profile) -> Profile:
        """Leave out where a span does not agree with the reference; note the errors of the rest."""
        piece, members = self.piece(partition, span), partition.members(span)
        able = [p for p in self.processors if p.name in profile.processors()]
        found = self.profiler.agreements(
            piece,
            able,
            self.agreement.tolerance,
            feeds=self._samples_of(partition).of(span) if able else (),
            wide=None if span == partition.whole else self.narrow.wide,
        )
        refused = refusals(found, able, self.agreement, self.tolerance)
        for name, why in refused.items():
            self._refuse(name, members, f"{piece.name} does not run on {name}: {why}")
            self.refused[f"{piece.name} on {name}"] = why
        self.spoiling |= {n for n, each in found.items() if each.nonfinite and n not in refused}
        kept = with_errors(profile, piece.name, found, able)
        return kept.where(lambda key: key.processor not in refused)

    def _refuse(self, processor: str, members: tuple[int, ...], reason: str) -> None:
        self.times.refuse(processor, members)
        self.problems[reason] = None

    def _haste(self, measured: _Entries) -> list[str]:
        """Say what was estimated because the budget was spent, and what was only run briefly."""
        estimated = sum(entry.estimated for entry in measured.values())
        fewest = self.profiler.effort.min_runs
        brief = sum(len(e.seconds) < fewest for e in measured.values() if not e.estimated)
        if not estimated and not (brief and self.profiler.budget.is_spent):
            return []
        return [
            f"{self.model.name}: {estimated} of {len(measured)} times are estimated from the "
            f"others by the cost of operators, and {brief} are of brief runs: the time for "
            "measuring was over; `coinfer plan` measures them"
        ]

    def _feeds_of(self, partition: Partition, span: Span, *, is_run: bool) -> list[Tensors]:
        """Return inputs of a span; of their shapes only where the cache alone is asked."""
        if is_run:
            return self._samples_of(partition).of(span)
        piece = self.piece(partition, span)
        return [piece.sample_inputs(seed=seed) for seed in range(len(self.feeds))]

    def _samples_of(self, partition: Partition) -> Samples:
        if self._samples is None or self._samples[0] is not partition:
            samples = Samples(self.model, partition, self.processors, self.backends, self.feeds)
            self._samples = (partition, samples)
        return self._samples[1]

    def _resident_bytes(self, entries: _Entries) -> int:
        """Sum over what is held, which processors may share."""
        by_name = {p.name: p for p in self.processors}
        sessions = {}
        for (span, name), entry in entries.items():
            backend = self.backends[by_name[name].backend]
            key = (span, by_name[name].backend, weights_key(backend, by_name[name]))
            sessions[key] = entry.resident_bytes
        return sum(sessions.values())


def _named_units(partition: Partition) -> tuple[Unit, ...]:
    return tuple(
        Unit(unit.operators, partition.operators[unit.operators[0]].name)
        for unit in partition.units
    )


def _two_of_each(processors: Sequence[Processor]) -> list[Processor]:
    """Return the first and the last of those that are alike: two, so that branches run on both."""
    kinds: dict[object, list[Processor]] = {}
    for processor in processors:
        kinds.setdefault(processor.likeness, []).append(processor)
    kept = {p.name for alike in kinds.values() for p in (alike[0], alike[-1])}
    return [processor for processor in processors if processor.name in kept]


def _as_one_unit(entries: _Entries) -> _Entries:
    return {(Span(), name): entry for (_, name), entry in entries.items()}
