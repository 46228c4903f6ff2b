"""Measure: the times of the models that run whole, on every processor, side by side.

Rule: all that runs may be loaded, so far. A processor that cannot run a model is left out with the
reason. Where the budget is spent, times are estimated by what other models show. A model that runs
nowhere at sizes that were guessed is loaded all the same.
"""

from __future__ import annotations

from collections.abc import Iterator

from coinfer.errors import BackendError
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.plan.plan import Plan
from coinfer.planner.planning import Planning
from coinfer.profiling import require_runnable
from coinfer.profiling.reference import REFERENCE

__all__ = ["measure"]

_NOMINAL_S = 0.01
"""What a model is expected to take of which nothing is known; learnt while running."""


def measure(plan: Plan, planning: Planning) -> Plan:
    """Add the times of models that run whole.

    Raises:
        BackendError: no processor runs a model.
    """
    whole = planning.whole
    measured = Profile()
    for batch, names in _by_batch(whole, planning):
        measured = measured.merged(_measured(plan, planning, names, batch))
    for name in planning.guessed:
        if name in whole and name not in measured.models():
            planning.unmeasured.add(name)
            plan, found = _unmeasured(plan, name)
            measured = measured.merged(found)
    for name in whole:
        if name not in measured.models():
            _check_not_empty(planning, name)
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
    interpolated = sum(entry.interpolated for _, entry in measured)
    if interpolated:
        notes.append(
            f"{interpolated} of {len(measured.entries)} times are interpolated between narrower "
            "and wider runs that were measured; they are learnt while running"
        )
    return plan.with_profile(profile).loading(profile).warned(*notes)


def _measured(plan: Plan, planning: Planning, names: list[str], batch: int) -> Profile:
    return planning.profiler.profile(
        {name: planning.models[name] for name in names},
        plan.processors,
        batch=batch,
        feeds={name: planning.samples[name] for name in names},
        works={n: work for n in names if (work := plan.models[n].work) is not None},
        skipped=planning.skips.append,
    )


def _check_not_empty(planning: Planning, name: str) -> None:
    """Say it in one line if a model runs nowhere and a size is 0, which few models can be run at.

    Raises:
        BackendError: so it is.
    """
    model = planning.models[name]
    for feed in planning.samples[name]:
        sizes = model.input_check.sizes_of(feed)
        empty = [f"{dim}=0" for dim in model.open_dims if sizes.get(dim) == 0]
        if empty:
            raise BackendError(
                f"no processor runs model {name!r} with {', '.join(empty)}; give sizes from 1"
            )


def _unmeasured(plan: Plan, name: str) -> tuple[Plan, Profile]:
    """Load a model in fp32: what is wrong may only be the guess.

    Its answers cannot be compared, so it runs where the reference does, if there is such a
    processor.
    """
    nominal = Measurement(seconds=(_NOMINAL_S,), estimated=True)
    able = [p for p in plan.processors if p.precision == "fp32"]
    able = [p for p in able if p.backend == REFERENCE.backend] or able
    where = ", ".join(processor.name for processor in able)
    return plan.warned(
        f"{name}: runs at no guess of its sizes, so nothing is known of its times and answers; it "
        f"is used on {where}; give samples"
    ), Profile({ProfileKey(name, p.name): nominal for p in able})


def _by_batch(names: list[str], planning: Planning) -> Iterator[tuple[int, list[str]]]:
    batches = {name: planning.wishes.batches.get(name, 1) for name in names}
    for batch in sorted(set(batches.values())):
        yield batch, [name for name in names if batches[name] == batch]
