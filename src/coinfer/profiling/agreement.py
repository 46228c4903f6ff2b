"""Agreement: how near the outputs of a model on a processor are to those of the reference.

A value, and how it is kept beside the profiles. Knows not how it is found out.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.profiling.cache import ProfileCache
from coinfer.workload.agreement_spec import AgreementSpec

__all__ = ["Agreement", "keep", "kept", "refusals", "with_errors"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What came of comparing the outputs of a model on a processor with the reference.

    Attributes:
        error: The largest relative error of an output; infinite where integers are not equal, or
            where the processor must not be used whatever the tolerance.
        why: What is wrong, without the names of model and processor; empty if nothing is.
        nonfinite: Whether outputs differ where inputs hold NaN or infinity.
        reference: What it was compared with.
        hangs: Whether the library hangs there, which it may not do next time: that is not kept.
    """

    error: float
    why: str = ""
    nonfinite: bool = False
    reference: str = "onnxruntime"
    hangs: bool = False


def refusals(
    found: Mapping[str, Agreement],
    processors: Iterable[Processor],
    spec: AgreementSpec,
    low_tolerance: float,
) -> dict[str, str]:
    """Return by processor why a model must not run there, of those where it must not.

    Args:
        found: What came of comparing, by processor.
        processors: All that are named.
        spec: What is asked for.
        low_tolerance: Largest output error below fp32, where that may be larger.

    >>> cpu = Processor(name="cpu", backend="null", units=frozenset({"u"}))
    >>> found = {"cpu": Agreement(error=0.5, why="its output 'y' is off by 0.5")}
    >>> refusals(found, [cpu], AgreementSpec(), 1.0)
    {'cpu': "its output 'y' is off by 0.5"}
    >>> refusals(found, [cpu], AgreementSpec(tolerance=1.0), 1.0)
    {}
    """
    refused = {}
    for processor in processors:
        agreement = found.get(processor.name)
        if agreement is None:
            continue
        is_low = processor.precision != "fp32"
        limit = max(spec.tolerance, low_tolerance) if is_low else spec.tolerance
        if not math.isfinite(agreement.error) or agreement.error > limit:
            refused[processor.name] = agreement.why
        elif agreement.nonfinite and spec.nonfinite == "strict":
            refused[processor.name] = (
                f"NaN or infinity come out otherwise than on {agreement.reference}"
            )
    return refused


def with_errors(
    profile: Profile, model: str, found: Mapping[str, Agreement], processors: Iterable[Processor]
) -> Profile:
    """Copy a profile with what came of comparing; below fp32 it keeps the error against fp32."""
    single = {processor.name for processor in processors if processor.precision == "fp32"}
    return Profile(
        {
            key: dataclasses.replace(entry, error=found[key.processor].error)
            if key.model == model and key.processor in single and key.processor in found
            else entry
            for key, entry in profile
        }
    )


def kept(cache: ProfileCache | None, parts: Mapping[str, object]) -> Agreement | None:
    """Return what was found out before; what is damaged counts as nothing."""
    if cache is None or not cache.reads:
        return None
    return cache.read(cache.path(parts), _agreement)


def _agreement(data: Any) -> Agreement:
    error = data["error"]
    return Agreement(
        error=math.inf if error is None else float(error),
        why=str(data["why"]),
        nonfinite=bool(data["nonfinite"]),
        reference=str(data["reference"]),
    )


def keep(cache: ProfileCache | None, parts: Mapping[str, object], found: Agreement) -> None:
    """Keep what was found out for good, if there is a cache that can be written."""
    if cache is None or found.hangs:
        return
    data = asdict(found)
    del data["hangs"]
    data["error"] = found.error if math.isfinite(found.error) else None  # JSON has no infinity
    cache.write(cache.path(parts), data)
