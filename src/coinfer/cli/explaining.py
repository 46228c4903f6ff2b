"""Explaining: why each execution of a request went to its processor, and why a policy decides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coinfer.cli.console import out
from coinfer.errors import UnknownNameError
from coinfer.metrics.explanation import SLOWEST, Explainer
from coinfer.metrics.explanation_table import render_explanation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from coinfer.plan import Alternative, Plan
    from coinfer.workload.scenario import Scenario

__all__ = ["alternative_lines", "explainer_of", "policy_lines", "print_explanation"]


def explainer_of(wanted: str | None, scenario: Scenario) -> Explainer | None:
    """Make what looks for the request that the user asked for; None if for none.

    Raises:
        UnknownNameError: neither a number, nor a model, nor `slowest`.
    """
    if wanted is None:
        return None
    if not wanted.isdecimal() and wanted != SLOWEST and wanted not in scenario.models:
        known = (SLOWEST, *scenario.models)
        raise UnknownNameError.of("request to explain", wanted, known, hint="Or give a number.")
    return Explainer(wanted)


def policy_lines(plan: Plan, *, why: bool) -> Iterator[str]:
    """Say why a plan has its policy, if it was chosen; with `why` also what the others lost by."""
    for choice in plan.policy_why:
        yield f"policy: {choice.what}"
        if why:
            yield from alternative_lines(choice.alternatives)


def alternative_lines(alternatives: Iterable[Alternative]) -> Iterator[str]:
    """Say what each alternative lost by, and of those that do the same only how many there are.

    >>> from coinfer.plan import Alternative
    >>> some = [Alternative("edf", "3/s"), Alternative("sjf", "2/s"), Alternative("heft", "3/s")]
    >>> list(alternative_lines(some))
    ['  not edf: 3/s; 1 other does the same', '  not sjf: 2/s']
    """
    alike: dict[str, list[str]] = {}
    for each in alternatives:
        alike.setdefault(each.why, []).append(each.name)
    for why, (first, *others) in alike.items():
        does = "other does" if len(others) == 1 else "others do"
        more = f"; {len(others)} {does} the same" if others else ""
        yield f"  not {first}: {why}{more}"


def print_explanation(explainer: Explainer | None) -> None:
    """Print what was found, if anything was looked for."""
    if explainer is None:
        return
    if explainer.found is None:
        out().print("no such request was executed and answered", soft_wrap=True)
    else:
        out().print(render_explanation(explainer.found))
