"""Plan text: a plan as the YAML that a person reads, compares and edits. Opens no file."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from coinfer.machine.batching import Batching
from coinfer.machine.span import Span
from coinfer.plan.choice import Choice
from coinfer.plan.fused_plan import FusedPlan
from coinfer.plan.index_ranges import ranges_text, span_text
from coinfer.plan.model_plan import ModelPlan
from coinfer.plan.plan import Plan
from coinfer.plan.variant import Kind, Variant, variant_name
from coinfer.plan.work import Work
from coinfer.units import format_bytes, format_seconds

__all__ = ["FORMAT", "WHOLE", "plan_text"]

FORMAT = "coinfer-plan/1"

WHOLE = "whole"
"""Stands for the only span of a model that is not cut."""

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./+@-]*(:[A-Za-z0-9_./+@?=-]+)?")
_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}


def plan_text(plan: Plan, files: Mapping[str, Any]) -> str:
    """Write a plan.

    Args:
        plan: The plan.
        files: `{"machine": {"file": ..., "fingerprint": ...}, "profiles": the same by variant,
            fused ones too, "sources": {model: source}}`.
    """
    return "\n".join(_lines(plan, files)) + "\n"


def _lines(plan: Plan, files: Mapping[str, Any]) -> Iterator[str]:
    yield "# What runs where, and why. docs/planning.md says what may be edited."
    yield f"format: {FORMAT}"
    yield f"name: {_scalar(plan.name)}"
    yield f"machine: {_flow({'name': plan.machine.name, **files['machine']})}"
    yield f"policy: {_flow({'name': plan.policy.name, 'options': plan.policy.options})}"
    yield from _choices(plan.policy_why, "policy_why", "")
    sizes = {name: _size(size) for name, size in plan.memory.items()}
    if plan.pinned:
        yield f"memory: {_flow({'budget': sizes, 'pin': list(plan.pinned)})}"
    elif sizes:
        yield f"memory: {_flow(sizes)}"
    if plan.rates:
        yield f"rates: {_flow(dict(plan.rates))}"
    yield "models:"
    for name, model in plan.models.items():
        yield f"  {_scalar(name)}:"
        if files["sources"].get(name):
            yield f"    source: {_scalar(files['sources'][name])}"
        if model.fingerprint:
            yield f"    fingerprint: {_scalar(model.fingerprint)}"
        yield "    batch: fixed" if model.fixed_batch else f"    batch: {model.batch}"
        if model.filling:
            yield f"    filling: {model.filling}"
        if model.batching is not None:
            yield f"    batching: {_flow(_batching(model.batching))}"
        if model.padding:
            yield f"    padding: {_flow(model.padding)}"
        if model.work is not None:
            yield f"    sizes: {_value(model.sizes)}"
            yield f"    work: {_flow(_work(model.work))}"
        yield f"    profile: {_flow(files['profiles'][name])}"
        yield from _variants(plan, name, model, files["profiles"])
        yield from _choices(model.choices)
    if plan.fused:
        yield "fused:"
        for name, fused in plan.fused.items():
            yield from _fused(plan, name, fused, files["profiles"][name])
    if plan.warnings:
        yield "warnings:"
        yield from (f"  - {_scalar(warning)}" for warning in plan.warnings)


def _fused(plan: Plan, name: str, fused: FusedPlan, profile: Mapping[str, str]) -> Iterator[str]:
    yield f"  {_scalar(name)}:"
    yield f"    models: {_value(fused.models)}"
    yield f"    graph: {_scalar(fused.graph.path)}"
    yield f"    sha256: {_scalar(fused.graph.sha256)}"
    yield f"    batch: {fused.batch}"
    yield f"    profile: {_flow(profile)}"
    times = [
        f"{key.processor} {format_seconds(entry.mean_s)}"
        for key, entry in plan.measured.restricted([name]).at_smallest
        if key.processor in fused.processors and key.batch == fused.batch
    ]
    note = f"  # {', '.join(times)}" if times else ""
    yield f"    processors: {_value(fused.processors)}{note}"
    yield from _choices(fused.choices)


def _size(size: int) -> int | str:
    """Write bytes so that they are read as the same number."""
    return f"{size >> 20}MiB" if size and not size & 0xFFFFF else size


def _batching(batching: Batching) -> dict[str, Any]:
    by_unit = {"by_unit": list(batching.by_unit)} if batching.by_unit else {}
    return {"max": batching.most, "max_delay": batching.max_delay_s, **by_unit}


def _work(work: Work) -> dict[str, Any]:
    return {
        "base": work.base,
        "axes": {name: list(axis) for name, axis in work.axes.items()},
        "terms": [[factor, *names] for names, factor in work.terms.items()],
    }


def _variants(
    plan: Plan, name: str, model: ModelPlan, profiles: Mapping[str, Any]
) -> Iterator[str]:
    yield "    variants:"
    for kind, variant in model.variants.items():
        yield f"      {kind}:"
        if variant.graph is not None:
            yield f"        graph: {_scalar(variant.graph.path)}"
            yield f"        sha256: {_scalar(variant.graph.sha256)}"
        if kind is not Kind.ORIGINAL:
            yield f"        error: {_float(variant.error)}"
            yield f"        use: {variant.use}"
            yield f"        profile: {_flow(profiles[variant_name(name, kind)])}"
            if variant.batching is not None:
                yield f"        batching: {_flow(_batching(variant.batching))}"
        if variant.units:
            yield "        units:"
            for unit in variant.units:
                operators = _scalar(ranges_text(unit.operators))
                yield f"          - {{operators: {operators}, first: {_scalar(unit.first)}}}"
        elif variant.n_units > 1:
            yield f"        n_units: {variant.n_units}"
        if variant.forks:
            yield f"        forks: {json.dumps([list(fork) for fork in variant.forks])}"
        yield "        processors:" if variant.spans else "        processors: {}"
        for processor, spans in variant.spans.items():
            note = _note(plan, name, kind, processor, spans)
            yield f"          {_scalar(processor)}: {_spans(variant, spans)}{note}"


def _spans(variant: Variant, spans: tuple[Span, ...]) -> str:
    if variant.n_units == 1:
        return WHOLE
    return f"[{', '.join(map(span_text, spans))}]"


def _note(plan: Plan, name: str, kind: Kind, processor: str, spans: tuple[Span, ...]) -> str:
    """Say what runs take there, for readers."""
    batch = plan.models[name].batch
    entries = [
        entry
        for key, entry in plan.measured.restricted([variant_name(name, kind)]).at_smallest
        if key.processor == processor and key.span in spans and key.batch == batch
    ]
    if not entries:
        return ""
    size = sum(entry.resident_bytes for entry in entries)
    times = ", ".join(f"{format_seconds(e.mean_s)} {e.origin}".rstrip() for e in entries)
    return f"  # {times}; {format_bytes(size)}"


def _choices(choices: Sequence[Choice], field: str = "why", indent: str = "    ") -> Iterator[str]:
    if not choices:
        return
    yield f"{indent}{field}:"
    for choice in choices:
        yield f"{indent}  - pass: {_scalar(choice.by)}"
        yield f"{indent}    chosen: {_scalar(choice.what)}"
        if choice.alternatives:
            yield f"{indent}    lost:"
            for each in choice.alternatives:
                why = _scalar(each.why)
                yield f"{indent}      - {{what: {_scalar(each.name)}, by: {why}}}"


def _flow(fields: Mapping[str, Any]) -> str:
    return "{" + ", ".join(f"{_value(k)}: {_value(v)}" for k, v in fields.items()) + "}"


def _value(value: Any) -> str:
    """Write any value of YAML on one line, so that YAML reads the same."""
    if isinstance(value, str):
        return _scalar(value)
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, Mapping):
        return _flow(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return _json(value)


def _float(value: float) -> str:
    """Write a float with a point: without, YAML 1.1 takes `1e-05` for text."""
    if not math.isfinite(value):
        return {math.inf: ".inf", -math.inf: "-.inf"}.get(value, ".nan")
    text = repr(value)
    return text if "." in text else text.replace("e", ".0e")


def _scalar(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return _json(text)


def _json(value: Any) -> str:
    """Write JSON, with what YAML would not take as it is, such as U+2028, by its number."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(each if each.isprintable() else f"\\U{ord(each):08X}" for each in text)
