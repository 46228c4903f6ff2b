"""Codec: events and commands as JSON values and back. Opens no file.

Numbers survive to the last bit: JSON gets the shortest decimal that reads back as the same float,
and what is not finite is written as a string.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Hashable, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar, assert_never, cast, get_args, get_type_hints

from coinfer.core.commands import Abandon, Command, Evict, Load, Reply, Run, SetTimer
from coinfer.core.events import Event, LoadedVariant, PolicyChanged
from coinfer.core.place import Loadable
from coinfer.core.request import OnLate, Request
from coinfer.machine.batching import Batching
from coinfer.machine.profile import Profile
from coinfer.machine.span import Fork, Span
from coinfer.machine.variant_use import Use
from coinfer.policies import make_policy

__all__ = ["decode_event", "encode_command", "encode_event", "plain"]

T = TypeVar("T")

_PLAIN = (bool, int, float, str)

_EVENTS: Mapping[str, type[Any]] = {cls.__name__: cls for cls in get_args(Event)}


def plain(value: Any) -> Any:
    """Return a value that JSON writes; sets are sorted.

    >>> plain((1, math.inf, OnLate.DROP, {"b", "a"}))
    [1, 'inf', 'drop', ['a', 'b']]
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Profile):
        return value.to_json()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, frozenset | set):
        return [plain(item) for item in sorted(value)]
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def encode_event(event: Event) -> list[Any]:
    """Return an event as its name and its fields.

    >>> from coinfer.core.events import Finished
    >>> decode_event(encode_event(Finished(3, 0.1)))
    Finished(execution_id=3, service_s=0.1)
    """
    if isinstance(event, PolicyChanged):
        return [type(event).__name__, event.name, plain(event.options)]
    return [type(event).__name__, *plain(event)]


def decode_event(data: Sequence[Any]) -> Event:
    """Read what `encode_event` made.

    Raises:
        KeyError, TypeError, ValueError: it is something else.
        ConfigurationError: its profile, or an option of its policy, is something else.
        UnknownNameError: its policy is not installed.
    """
    name, *fields = data
    if name in ("Arrived", "ArrivedTogether"):
        fields = [_request(*fields)]
    elif name == "ModelLoaded":
        fields = _loaded(*fields)
    elif name == "FusedLoaded":
        variant, members, profile, *later = fields  # older logs have less
        known = [tuple(map(_loadable, each)) for each in later[:1]]
        fields = [variant, tuple(members), Profile.from_json(profile), *known, *later[1:]]
    elif name == "MemoryGiven":
        for row in fields[3:]:  # older logs have none
            fields[3] = {variant: tuple(map(_loadable, each)) for variant, each in row.items()}
    elif name == "PolicyChanged":
        policy, options = fields
        fields = [make_policy(policy, **options), policy, options]
    event: Event = _checked(_EVENTS[name](*fields))
    return event


def encode_command(command: Command) -> list[Any]:
    """Return a command as its name and what tells it from another; requests by their numbers."""
    match command:
        case Run(execution):
            number, variant, span, processor, requests, started_s, expected_s = execution
            ids = [request.id for request in requests]
            fields: tuple[Any, ...] = (number, variant, span, processor, ids, started_s, expected_s)
        case Reply(request, outcome, reason):
            fields = (request.id, outcome, reason)
        case Abandon(execution, reason):
            fields = (execution.id, reason)
        case Evict(model, place):
            fields = (model,) if place < 0 else command
        case SetTimer() | Load():
            fields = command
        case _:
            assert_never(command)
    return [type(command).__name__, *plain(fields)]


def _request(fields: Sequence[Any]) -> Request:
    number, model, arrival_s, deadline_s, priority, on_late, batch, *shape = fields
    times_s = float(arrival_s), float(deadline_s)
    return _checked(Request(number, model, *times_s, priority, OnLate(on_late), batch, *shape))


def _checked(record: T) -> T:
    """Refuse numbers and texts that are none: the core takes what it is given at its word.

    Raises:
        TypeError: names the field.
        ValueError: a number is not one that can be compared.
    """
    for name, kind in _plain_fields(cast(Hashable, type(record))):
        value = getattr(record, name)
        if not isinstance(value, (int, float) if kind is float else kind) or (
            isinstance(value, bool) and kind is not bool
        ):
            raise TypeError(f"{name} of {type(record).__name__} is {value!r}, not {kind.__name__}")
        if value != value:
            raise ValueError(f"{name} of {type(record).__name__} is not a number")
    return record


@cache
def _plain_fields(record: Any) -> tuple[tuple[str, type[Any]], ...]:
    hints = get_type_hints(record)
    return tuple((name, hints[name]) for name in record._fields if hints[name] in _PLAIN)


def _loaded(model: str, units: int, profile: Any, *later: Any) -> list[Any]:
    forks = [tuple(Fork(*fork) for fork in each) for each in later[:1]]  # older logs have none
    swap_s = later[1:2]
    batching = [None if each is None else _batching(*each) for each in later[2:3]]
    variants = [tuple(_variant(*fields) for fields in each) for each in later[3:4]]
    places = [tuple(map(_loadable, each)) for each in later[4:5]]
    known = [*forks, *swap_s, *batching, *variants, *places]
    return [model, units, Profile.from_json(profile), *known]


def _variant(name: str, error: float, use: str, *loaded: Any) -> LoadedVariant:
    _, units, *fields = _loaded(name, *loaded[:5])
    fields += [tuple(map(_loadable, each)) for each in loaded[5:]]  # older logs have none
    return _checked(LoadedVariant(name, float(error), Use(use), units, *fields))


def _batching(most: int, max_delay_s: float = 0.0, by_unit: Sequence[int] = ()) -> Batching:
    return _checked(Batching(most, max_delay_s, tuple(by_unit)))  # older logs have two


def _loadable(fields: Sequence[Any]) -> Loadable:
    span, processors, *others = fields
    return _checked(Loadable(Span(*span), tuple(processors), *others))
