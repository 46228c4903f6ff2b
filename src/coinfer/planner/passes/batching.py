"""Batching: which models may be run for several requests at once, and for how many samples.

Rule: requests may share an execution only where their answers do not change with the company that
they are computed in, by more than the tolerance of the agreement: two different samples are run
alone and together. How long a run takes is measured at 2, 4, 8 and 16 samples, of each class of
sizes, until twice in a row more do not pay: a library may take as long for 2 samples as for 16.
Nor is measured what can never run: where requests have deadlines, a run may last no longer than
`max_blocking`, or twice the longest run of one request (`coinfer.core.blocking`).
Without a wish, the largest batch is the smallest one at which a sample takes hardly more than at
the best, and there is none if a sample takes hardly less than alone. Who shares an execution is
decided while running (`coinfer.core.riders`).

The parts of a model that is cut are measured one by one, and each gets the batch size that the
shortest path finds for it (`coinfer.planner.layer_path`). Where they cannot be measured, the model
is measured whole, and its spans are taken to speed up as it does.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from coinfer.backends.registry import find_backends
from coinfer.machine.batching import Batching
from coinfer.machine.processor import Processor, ordinary
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.model import Model
from coinfer.plan.choice import Alternative, Choice
from coinfer.plan.plan import Plan
from coinfer.planner.first_axis import first_axis_obstacle
from coinfer.planner.layer_path import layer_path, measured_layers
from coinfer.planner.padding import padding_error, settled_padding
from coinfer.planner.planning import Planning
from coinfer.planner.samples import several_samples, two_samples
from coinfer.profiling.batch_axis import company_error
from coinfer.runtime.span_io import span_ios_of
from coinfer.workload.batch_spec import BatchSpec

__all__ = ["batching", "chosen_batching"]

_LEAST_GAIN = 0.05
"""Share of its time alone that a sample must save in the best batch."""

_HARDLY = 0.03
"""A sample may take so much more than in the best batch, if that keeps the batch smaller."""

_MISSES = 2
"""Sizes in a row at which a sample takes no less than before, after which none is measured."""


def batching(plan: Plan, planning: Planning) -> Plan:
    """Let requests of those models share executions for which that pays."""
    for name, model in planning.models.items():
        spec = planning.wishes.riders.get(name, BatchSpec())
        reason = _obstacle(plan, planning, name, model, spec)
        if reason:
            plan = plan.with_batching(name, None, Choice("batching", f"none: {reason}"))
            if spec.pad:
                plan = plan.warned(f"{name}: nothing is padded: no requests share runs: {reason}")
            continue
        if spec.pad:
            plan = _with_padding(plan, planning, name, spec)
            model = planning.models[name]
        measured, kept = _measured_parts(plan, planning, name, spec)
        too_long: tuple[Alternative, ...] = ()
        if not kept:
            measured, too_long = _measured(plan, planning, name, model, spec)
        plan = plan.with_profile(plan.measured.merged(measured))
        chosen, choice = chosen_batching(plan, name, spec, kept)
        choice = choice._replace(alternatives=(*choice.alternatives, *too_long))
        plan = plan.with_batching(name, chosen, choice)
    return plan


def chosen_batching(
    plan: Plan, name: str, spec: BatchSpec, kept: Sequence[int] = ()
) -> tuple[Batching | None, Choice]:
    """Choose the batching of a model by the times that a plan has for it.

    Args:
        plan: The plan.
        name: The model.
        spec: What is wished.
        kept: Of a model that is cut, the bytes of a sample before each part and behind the last.
    """
    samples, filling = plan.models[name].batch, plan.models[name].filling
    if spec.most < 2 * samples:
        return None, Choice("batching", "none: as asked")
    if filling:
        spec = spec.at_most(filling)
        if spec.most < 2 * samples:
            return None, Choice("batching", f"none: a request fills the {filling} of its file")
    if plan.models[name].is_cut and samples == 1:
        found = _by_layers(plan, name, spec, kept)
        if found is not None:
            return found
    gains = _gains(plan, name)
    best = min(gains.values(), default=1.0)
    seen = tuple(
        Alternative(f"batch {batch}", f"{gain:.2f}x of one run each")
        for batch, gain in gains.items()
        if batch > samples
    )
    if not seen:
        return None, Choice("batching", "none: no time is known of more samples than a request has")
    if spec.max != "auto":
        return Batching(spec.most, spec.max_delay), Choice("batching", f"up to {spec.max}", seen)
    if best > 1 - _LEAST_GAIN:
        what = f"none: a sample takes {best:.2f}x as long at best as in a run of its own"
        return None, Choice("batching", what, seen)
    most = min(batch for batch, gain in gains.items() if gain <= best * (1 + _HARDLY))
    if spec.max_delay:
        most = max(most, 2 * samples)
    others = tuple(each for each in seen if each.name != f"batch {most}")
    filled = ", which its file fixes; what is free is filled up" if filling else ""
    what = f"up to {most}{filled}: a sample takes {gains[most]:.2f}x as long as in a run of its own"
    return Batching(most, spec.max_delay), Choice("batching", what, others)


def _by_layers(
    plan: Plan, name: str, spec: BatchSpec, kept: Sequence[int]
) -> tuple[Batching | None, Choice] | None:
    """Choose the batch size of each part of a cut model; None if little is known of the parts."""
    found = layer_path(plan, name, spec.most, kept)
    if found is None:
        return None
    path = found.path
    alone_s = path.fixed_s[min(path.fixed_s)]
    share = path.seconds / alone_s if alone_s else 1.0
    seen = tuple(
        Alternative(f"batch {batch}", f"{seconds / alone_s:.2f}x of one run each")
        for batch, seconds in path.fixed_s.items()
        if batch > 1 and alone_s
    )
    if spec.max != "auto" and max(found.by_unit) < 2:
        return None  # as asked, then; who shares is decided while running
    if share > 1 - _LEAST_GAIN and spec.max == "auto":
        what = f"none: a sample takes {share:.2f}x as long at best as in a run of its own"
        return None, Choice("batching", what, seen)
    what = f"{found.text}: {found.requests} that wait take {share:.2f}x of one run each"
    most = max(found.by_unit) if spec.max == "auto" else spec.most
    by_unit = () if min(found.by_unit) == most else found.by_unit
    return Batching(most, spec.max_delay, by_unit), Choice("batching", what, seen)


def _measured_parts(
    plan: Plan, planning: Planning, name: str, spec: BatchSpec
) -> tuple[Profile, Sequence[int]]:
    """Measure the parts of a model that is cut; nothing of one that is whole."""
    cut = planning.cut_models.get(name)
    if cut is None or plan.models[name].batch != 1:
        return Profile(), ()
    batches = [2**power for power in range(1, spec.most.bit_length()) if 2**power <= spec.most]
    return measured_layers(plan, name, cut, batches, planning.samples[name], planning.profiler)


def _gains(plan: Plan, name: str) -> dict[int, float]:
    """Return by batch what a sample takes of a run of its own, where that is least."""
    samples = plan.models[name].batch
    profile = plan.profile.restricted([name])
    alone = profile.where(lambda key: key.batch == samples)
    return _least_shares(alone, profile)


def _least_shares(alone: Profile, times: Profile) -> dict[int, float]:
    """Return by batch the least share; what was measured goes before what is only estimated."""
    found: dict[int, tuple[bool, float]] = {}
    for key, share, is_estimated in _shares(alone, times):
        found[key.batch] = min((is_estimated, share), found.get(key.batch, (True, math.inf)))
    return {batch: share for batch, (_, share) in sorted(found.items())}


def _shares(alone: Profile, times: Profile) -> Iterator[tuple[ProfileKey, float, bool]]:
    """Yield what a sample takes of a run of its own, over all classes of sizes together.

    And whether some of it is an estimate.
    """
    sums: dict[ProfileKey, tuple[float, float, bool]] = {}
    one_of = {key._replace(batch=1): (key.batch, entry) for key, entry in alone}
    for key, entry in times:
        samples, one = one_of.get(key._replace(batch=1), (1, None))
        if one is not None and one.mean_s > 0:
            of = key._replace(shape=0)
            together_s, apart_s, is_estimated = sums.get(of, (0.0, 0.0, False))
            sums[of] = (
                together_s + entry.mean_s * samples,
                apart_s + one.mean_s * key.batch,
                is_estimated or entry.estimated or one.estimated,
            )
    for key, (together_s, apart_s, is_estimated) in sums.items():
        yield key, together_s / apart_s, is_estimated


def _obstacle(plan: Plan, planning: Planning, name: str, model: Model, spec: BatchSpec) -> str:
    """Say why requests of a model cannot share executions; nothing if they can."""
    planned = plan.models[name]
    if reason := first_axis_obstacle(model, fixed=planned.fixed_batch):
        return reason
    if spec.most < 2 * planned.batch:
        return "as asked"
    cut = planning.cut_models.get(name)
    if cut is not None and not all(io.stacks for io in span_ios_of(cut).values()):
        return "of some value between its spans the first axis is not the batch"
    return _company_obstacle(plan, planning, name, model)


def _company_obstacle(plan: Plan, planning: Planning, name: str, model: Model) -> str:
    """Run two samples alone and together where the model is loaded, once per library."""
    tolerance = planning.wishes.agreement.tolerance
    given, sizes = planning.samples[name], _sizes(plan, name)
    pairs = partial(two_samples, model, given, sizes)
    if model.filling:
        pairs = partial(several_samples, model, given, sizes, model.filling)
    if next(pairs(), None) is None:
        return "there are no two samples to compare"
    backends = find_backends(plan.processors, planning.profiler.backends)
    errors: dict[str, float] = {}
    with planning.profiler.budget.spending():
        for processor in _one_per_library(plan, name):
            error = company_error(model, [processor], backends, pairs, planning.profiler.cache)
            if error is not None:
                errors[processor.name] = error
    for at, error in errors.items():
        if error > tolerance:
            return (
                f"on {at} its answers change with the company that they are computed in, by "
                f"{error:.2g}; {tolerance:g} is allowed"
            )
    return "" if errors else "no processor could tell whether answers depend on the company"


def _with_padding(plan: Plan, planning: Planning, name: str, spec: BatchSpec) -> Plan:
    """Let requests be padded as asked, if they get what they get alone."""
    padding = settled_padding(planning.models[name], spec)
    model = planning.models[name].with_padding(padding)
    along = ", ".join(padding)
    reason = _padding_obstacle(plan, planning, name, model)
    if reason:
        return plan.warned(f"{name}: requests are not padded along {along}: {reason}")
    planning.models = {**planning.models, name: model}
    return plan.with_padding(name, padding)


def _padding_obstacle(plan: Plan, planning: Planning, name: str, model: Model) -> str:
    if name in planning.cut_models:
        return "the model is cut"
    if name in planning.wishes.variants or name in planning.variants:
        return "it has variants, which were not tried"
    tolerance = planning.wishes.agreement.tolerance
    backends = find_backends(plan.processors, planning.profiler.backends)
    sample, errors = planning.samples[name][0], list[float]()
    with planning.profiler.budget.spending():
        for at in _one_per_library(plan, name):
            cache = planning.profiler.cache
            error = padding_error(model, at, backends[at.backend], sample, cache)
            if error is not None and not error <= tolerance:
                differs = "of another shape" if error == math.inf else f"off by {error:.2g}"
                return (
                    f"on {at.name} answers of a padded request are {differs}, {tolerance:g} is "
                    "allowed; pad with a value that the model ignores, and its mask with 0"
                )
            errors += [] if error is None else [error]
    return "" if errors else "no processor could tell whether its answers stay what they are"


def _one_per_library(plan: Plan, name: str) -> list[Processor]:
    """Return of each library that a model is loaded with a processor in fp32."""
    loaded = plan.models[name].original.spans
    libraries = {p.backend for p in plan.processors if p.name in loaded}
    used: dict[str, Processor] = {}
    for processor in ordinary(plan.processors):
        if processor.backend in libraries and processor.precision == "fp32":
            used.setdefault(processor.backend, processor)
    return list(used.values())


def _sizes(plan: Plan, name: str) -> Mapping[str, int]:
    sizes = plan.models[name].sizes
    return sizes[0] if sizes else {}


def _measured(
    plan: Plan, planning: Planning, name: str, model: Model, spec: BatchSpec
) -> tuple[Profile, tuple[Alternative, ...]]:
    """Measure a model at more and more samples, until more no longer pay, or would take too long.

    Returns also what was not measured, because it would.
    """
    planned = plan.models[name]
    samples, units = planned.batch, planned.original.n_units
    loaded = plan.profile.restricted([name])
    processors = [p for p in plan.processors if p.name in planned.original.spans]
    works = {} if planned.work is None else {name: planned.work}

    def at(batch: int) -> Profile:
        return planning.profiler.profile(
            {name: model},
            processors,
            batch=batch,
            feeds={name: planning.samples[name]},
            works=works,
            skipped=lambda _skip: None,
        )

    alone = at(samples)
    if model.filling:  # all runs are of the whole batch
        full = model.filling // samples * samples
        times = at(full) if full > samples else Profile()
        return _of_spans(loaded, alone, times, units), ()
    longest_s = _longest_s(plan, planning) if spec.max == "auto" else math.inf
    found, best, batch, misses = Profile(), 1.0, samples, 0
    before, times = alone, alone
    while misses < _MISSES and (batch := 2 * batch) <= spec.most:
        if _at_least_s(before, times) > longest_s:
            why = f"not measured: longer than {longest_s:.3g} s, which deadlines do not allow"
            return found, (Alternative(f"batch {batch}", why),)
        before, times = times, at(batch)
        if all(entry.estimated for _, entry in times):
            break
        found = found.merged(_of_spans(loaded, alone, times, units))
        gain = _least_shares(alone, times).get(batch, 1.0)
        misses = 0 if gain <= best * (1 - _HARDLY) else misses + 1
        best = min(best, gain)
    return found, ()


def _longest_s(plan: Plan, planning: Planning) -> float:
    """Return what no run of several requests may last anywhere, by what was measured."""
    wishes = planning.wishes
    if not wishes.demand.deadlines:
        return math.inf
    if wishes.scenario is not None and wishes.scenario.max_blocking is not None:
        return wishes.scenario.max_blocking
    ones = plan.profile.where(lambda key: key.batch == plan.models[key.model].batch)
    return 2 * max((entry.mean_s for _, entry in ones), default=math.inf)


def _at_least_s(before: Profile, times: Profile) -> float:
    """Return what a run of twice as many samples takes at least, wherever that is least.

    A further sample is taken to need half of what those before needed.
    """
    known = {key._replace(batch=1): entry.mean_s for key, entry in before}
    found = []
    for key, entry in times:
        more_s = entry.mean_s - known.get(key._replace(batch=1), entry.mean_s)
        found.append(entry.mean_s + max(0.0, more_s))
    return min(found, default=0.0)


def _of_spans(loaded: Profile, alone: Profile, times: Profile, units: int) -> Profile:
    """Return the times of what is loaded: as measured, or of spans in proportion to the whole."""
    entries: dict[ProfileKey, Measurement] = {}
    ones = {(of.processor, of.shape): each for of, each in alone}
    samples = next((of.batch for of, _ in alone), 1)
    for key, entry in times:
        one = ones.get((key.processor, key.shape))
        if one is None or not one.mean_s:
            continue
        factor = entry.mean_s / one.mean_s
        for of, each in loaded:
            if (of.processor, of.shape) != (key.processor, key.shape) or of.batch != samples:
                continue
            if units == 1:
                found = dataclasses.replace(entry, error=each.error)
            else:
                scaled = tuple(factor * seconds for seconds in each.seconds)
                found = dataclasses.replace(each, seconds=scaled, estimated=True)
            entries[of._replace(batch=key.batch)] = found
    return Profile(entries)
