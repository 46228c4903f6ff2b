"""Offer: how a waiting request would be served on a processor now. Decides nothing.

Policies compare offers and name a lane and a processor; what else an execution needs is settled
here, for what is offered and for what is started alike. Most policies compare many and take one:
they compare the columns of `View` (`offered_s`, `resident_s`), and an offer is made of one of them.
"""

from __future__ import annotations

from typing import NamedTuple

from coinfer.core.lane import Lane
from coinfer.core.request import Request
from coinfer.core.residency import Residency
from coinfer.core.routes import Step
from coinfer.machine.span import Span

__all__ = ["Offer", "make_offer"]

_new = tuple.__new__


class Offer(NamedTuple):
    """How the first request of a lane would be served on a processor.

    Attributes:
        lane: Its lane.
        processor: Where.
        variant: What is run; the original variant has the name of its model.
        span: Which units of it.
        riders: The requests beside the first that the same execution serves.
        load_s: Seconds until the processor holds the variant.
        seconds: Seconds of the span after that: until the answer, or until the next boundary if the
            span ends before the model does.
        cost_s: Seconds of the processor, divided by the requests that they serve.
        ready_s: The moment from which it may start. Later than now: it can be reserved, not
            started.
    """

    lane: Lane
    processor: str
    variant: str
    span: Span
    riders: tuple[Request, ...]
    load_s: float
    seconds: float
    cost_s: float
    ready_s: float

    @property
    def expected_s(self) -> float:
        """Seconds of the processor: of the load and of the span."""
        return self.seconds + self.load_s


def make_offer(
    lane: Lane,
    step: Step,
    held: Residency | None,
    riders: tuple[Request, ...] = (),
    variant: str = "",
) -> Offer:
    """Complete a step of a lane's first request and its riders: what is loaded before, the cost.

    Args:
        lane: The lane.
        step: The span, the processor and the seconds, for all that the execution serves.
        held: Which models the processors hold, now or as somebody foresees it; None if loads cost
            nothing.
        riders: Those beside the first (`coinfer.core.riders`, or a policy of its own).
        variant: What serves all of them; by default that of the lane.
    """
    span, processor, seconds = step
    variant, load_s = variant or lane.variant, 0.0
    cost_s = seconds
    if held is not None:
        load_s = held.cost_s(processor, variant)
        cost_s += load_s
    if riders:
        cost_s /= 1 + len(riders)
    ready_s = 0.0 if lane.is_open else lane.ready_s.get(processor, 0.0)
    return _new(Offer, (lane, processor, variant, span, riders, load_s, seconds, cost_s, ready_s))
