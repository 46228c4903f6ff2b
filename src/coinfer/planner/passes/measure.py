"""Measure: the times of the models that run whole, on every processor, side by side.

Rule: all that runs may be loaded, so far. A processor that cannot run a model is left out with the
reason. Where the budget is spent, times are estimated by what other models show.
"""

from __future__ import annotations

from collections.abc import Iterator

from coinfer.machine.profile import Profile
from coinfer.plan.plan import Plan
from coinfer.planner.planning import Planning
from coinfer.profiling import require_runnable

__all__ = ["measure"]


def measure(plan: Plan, planning: Planning) -> Plan:
    """Add the times of models that run whole.

    Raises:
        BackendError: no processor runs a model.
    """
    whole, samples = planning.whole, planning.samples
    measured = Profile()
    for batch, names in _by_batch(whole, planning):
        measured = measured.merged(
            planning.profiler.profile(
                {name: planning.models[name] for name in names},
                plan.processors,
                batch=batch,
                feeds={name: samples[name] for name in names},
                works={n: work for n in names if (work := plan.models[n].work) is not None},
                skipped=planning.skips.append,
            )
        )
    require_runnable(whole, measured, planning.skips)
    profile = plan.measured.merged(measured)
    notes = [skip.reason for skip in planning.skips]
    estimated = sum(entry.estimated for _, entry in measured)
    if estimated:
        notes.append(
            f"{estimated} of {len(measured.entries)} times are estimated from those of other "
            "models: the time for measuring was over; `coinfer plan` or `coinfer profile` "
            "measures them"
        )
    return plan.with_profile(profile).loading(profile).warned(*notes)


def _by_batch(names: list[str], planning: Planning) -> Iterator[tuple[int, list[str]]]:
    batches = {name: planning.wishes.batches.get(name, 1) for name in names}
    for batch in sorted(set(batches.values())):
        yield batch, [name for name in names if batches[name] == batch]
