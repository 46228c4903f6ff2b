"""Commands: what is to be done, in the imperative. A driver performs them in the order given."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from coinfer.core.request import Outcome, Request
from coinfer.machine.span import Span

__all__ = ["Abandon", "Command", "Evict", "Execution", "Load", "Reply", "Run", "SetTimer"]


class Execution(NamedTuple):
    """One run of one span of one variant on one processor, for one or several requests.

    These are of one model, or one each of several members of a fused variant.

    The original variant of a model has the name of the model.
    """

    id: int
    variant: str
    span: Span
    processor: str
    requests: tuple[Request, ...]
    started_s: float
    expected_s: float

    @property
    def model(self) -> str:
        """The model that its first request asked for."""
        return self.requests[0].model

    @property
    def is_fused(self) -> bool:
        """Whether its requests are of several models, one each: then a fused variant runs."""
        requests = self.requests
        return len(requests) > 1 and requests[0].model != requests[1].model

    @property
    def batch(self) -> int:
        """Samples that it runs: the sum over its requests; of a fused variant, in each slot."""
        if len(self.requests) == 1:  # nearly always, and on the path of every request
            return self.requests[0].batch
        if self.is_fused:
            return self.requests[0].batch
        return sum(request.batch for request in self.requests)

    @property
    def expected_end_s(self) -> float:
        """When it should end, by the estimate."""
        return self.started_s + self.expected_s


class Run(NamedTuple):
    """Start an execution on its processor now."""

    execution: Execution


class Reply(NamedTuple):
    """Answer a request; each request is answered exactly once."""

    request: Request
    outcome: Outcome
    reason: str = ""


class SetTimer(NamedTuple):
    """Post `TimerFired` at `at_s`. A later command replaces an earlier one."""

    at_s: float


class Abandon(NamedTuple):
    """Stop waiting for an execution that overran its limit; its processor was set aside.

    Whatever it still returns is ignored.
    """

    execution: Execution
    reason: str


class Load(NamedTuple):
    """Load a span of a variant for processors that share it; post `Loaded` or `LoadFailed`.

    One at a time: another is not asked for before this one has ended.
    """

    place: int
    variant: str
    span: Span
    processors: tuple[str, ...]
    expected_s: float
    size_bytes: int = 0


class Evict(NamedTuple):
    """Close sessions.

    Those of one place, which nothing uses, before what is asked for later is loaded. Or, without a
    place, all that is left of a model that was unloaded and of which no request is left.
    """

    model: str
    place: int = -1
    span: Span = Span()
    processors: tuple[str, ...] = ()


Command: TypeAlias = Run | Reply | SetTimer | Abandon | Load | Evict
