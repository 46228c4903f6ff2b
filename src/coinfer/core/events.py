"""Events: what happened, in the past tense. The dispatcher takes one at a time, with the time.

Events and commands are named tuples and not dataclasses: several are made per request, and a tuple
costs a third as much to make.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from coinfer.core.place import Loadable
from coinfer.core.request import Request
from coinfer.machine.batching import Batching
from coinfer.machine.profile import Profile
from coinfer.machine.span import Fork
from coinfer.machine.variant_use import Use

__all__ = [
    "Arrived",
    "ArrivedTogether",
    "Cancelled",
    "Closed",
    "Event",
    "Failed",
    "Finished",
    "FinishedTogether",
    "FusedLoaded",
    "LoadFailed",
    "Loaded",
    "LoadedVariant",
    "MemoryGiven",
    "MemoryMeasured",
    "ModelLoaded",
    "ModelUnloaded",
    "PolicyChanged",
    "ProcessorLost",
    "ProcessorRestored",
    "TimerFired",
]


class Arrived(NamedTuple):
    """A caller submitted a request."""

    request: Request


class ArrivedTogether(Arrived):
    """A caller submitted a request, and another event is there already, to be handled next.

    What starts is decided after that one: then the policy, and who shares a run, know of both.
    """

    __slots__ = ()


class Finished(NamedTuple):
    """An execution ended well.

    `service_s` is the time on the processor alone, in seconds: what the estimates learn from.
    """

    execution_id: int
    service_s: float


class FinishedTogether(Finished):
    """An execution ended well, and another event is there already, to be handled next.

    Its requests are answered; what starts is decided after that one.
    """

    __slots__ = ()


class Failed(NamedTuple):
    """An execution raised; the processor itself goes on."""

    execution_id: int
    reason: str


class Cancelled(NamedTuple):
    """The caller no longer wants the answer."""

    request_id: int


class TimerFired(NamedTuple):
    """The moment of a `SetTimer` has come."""


class ProcessorLost(NamedTuple):
    """A processor died. What it was running is retried elsewhere or answered with a failure."""

    processor: str
    reason: str


class ProcessorRestored(NamedTuple):
    """A processor that was lost works again."""

    processor: str


class LoadedVariant(NamedTuple):
    """A variant beside the original that may answer requests of a model; no event by itself.

    Its profile has it under its own name. `error` is how far its outputs are off those of the
    original, ||out - ref|| / ||ref||; `use` says when it serves. All else is as of `ModelLoaded`.
    """

    name: str
    error: float
    use: Use
    units: int
    profile: Profile
    forks: tuple[Fork, ...] = ()
    swap_s: Mapping[str, float] = MappingProxyType({})
    batching: Batching | None = None
    places: tuple[Loadable, ...] = ()


class ModelLoaded(NamedTuple):
    """A model can be run on the processors that its profile names.

    `forks` are those of its spans of which two may run at the same time. `swap_s` has, by
    processor that holds one model at a time, the seconds until this one is there after another.
    `batching` is None if each of its requests is a run of its own. All that is of the original
    variant, which has the name of the model; `variants` are others that may answer in its place.
    `places` are what is loaded of the variant, or can be, in memories that have a budget; what is
    not among them is always there.
    """

    model: str
    units: int
    profile: Profile
    forks: tuple[Fork, ...] = ()
    swap_s: Mapping[str, float] = MappingProxyType({})
    batching: Batching | None = None
    variants: tuple[LoadedVariant, ...] = ()
    places: tuple[Loadable, ...] = ()


class FusedLoaded(NamedTuple):
    """A variant can be run that answers one request of each of several loaded models.

    Attributes:
        variant: Its name; no model has it.
        members: The models, in the order of its inputs.
        profile: Its times.
        places: What is loaded of it, or can be, in memories that have a budget.
        handover_s: Seconds that handing over a run costs beyond its service time, as it was
            measured: a fused run pays them once, its riders alone would each.
    """

    variant: str
    members: tuple[str, ...]
    profile: Profile
    places: tuple[Loadable, ...] = ()
    handover_s: float = 0.0


class ModelUnloaded(NamedTuple):
    """A model takes no more requests; waiting ones are answered, running ones finish."""

    model: str


class MemoryGiven(NamedTuple):
    """Memories have so many bytes for what is loaded, by name; at first or from now on.

    Attributes:
        budgets: Bytes by name of the memory.
        eviction: The value of an `Eviction`.
        most_models: Beyond so many models nothing is loaded, however much room there is; 0: no
            limit.
        places: By variant, what is loaded and may be evicted from now on, of those that came when
            memory had no budget.
    """

    budgets: Mapping[str, int]
    eviction: str = "cost"
    most_models: int = 0
    places: Mapping[str, tuple[Loadable, ...]] = MappingProxyType({})


class MemoryMeasured(NamedTuple):
    """The system said how many bytes this process holds, of its own and of files; 0: it did not.

    If `place` is not negative, that place was measured to take `size_bytes`.
    """

    anonymous: int
    mapped: int
    place: int = -1
    size_bytes: int = 0


class Loaded(NamedTuple):
    """A place was loaded within so many seconds."""

    place: int
    seconds: float


class LoadFailed(NamedTuple):
    """A place could not be loaded."""

    place: int
    reason: str


class PolicyChanged(NamedTuple):
    """Another policy decides from now on.

    Attributes:
        policy: It, a `coinfer.core.policy.Policy`; a fresh one.
        name: Its name, for logs.
        options: Its options, for logs.
    """

    policy: object
    name: str
    options: Mapping[str, Any] = MappingProxyType({})


class Closed(NamedTuple):
    """The engine takes no more requests. `drop_waiting` also answers those not yet started."""

    drop_waiting: bool


Event: TypeAlias = (
    Arrived
    | ArrivedTogether
    | Finished
    | FinishedTogether
    | Failed
    | Cancelled
    | TimerFired
    | ProcessorLost
    | ProcessorRestored
    | ModelLoaded
    | FusedLoaded
    | ModelUnloaded
    | MemoryGiven
    | MemoryMeasured
    | Loaded
    | LoadFailed
    | PolicyChanged
    | Closed
)
