"""Event log: a file with what a dispatcher was told and what it commanded. Replays nothing.

JSON lines: first a header (what the dispatcher was made of), then one line per step,
`[seconds, event, commands]`. Models and their profiles are events. Compressed if the name ends in
`.gz`. It is written as it goes: what a crash leaves behind can be read up to there.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self, TextIO, TypeVar, cast

from coinfer.core.commands import Command
from coinfer.core.dispatcher import Limits
from coinfer.core.events import Event
from coinfer.documents.raw import parse_json
from coinfer.errors import ConfigurationError, UnknownNameError
from coinfer.machine.machine_json import decode_processor, encode_processor
from coinfer.machine.processor import Processor
from coinfer.replay.codec import decode_event, encode_command, encode_event, plain

__all__ = ["EventLog", "LogHeader", "Step", "read_log", "recording"]

T = TypeVar("T")

_FORMAT = "coinfer-log/1"

_MOST_LINE = 2**26
"""Characters; what is packed into a file may be without an end."""

_WRONG = (
    *(AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError),
    *(ConfigurationError, AssertionError),
)
"""What reading a value of another shape raises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogHeader:
    """What a dispatcher is made of.

    Attributes:
        policy: Name of the policy.
        options: Its options.
        processors: In the order of preference.
        limits: What the dispatcher enforces whatever the policy wants.
        scenario: Name of the scenario, for people.
    """

    policy: str
    options: Mapping[str, Any] = field(default_factory=dict)
    processors: tuple[Processor, ...]
    limits: Limits = Limits()
    scenario: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return a value that `json.dumps` writes and `from_json` reads."""
        return {
            "format": _FORMAT,
            "scenario": self.scenario,
            "policy": {"name": self.policy, "options": plain(self.options)},
            "processors": [encode_processor(processor) for processor in self.processors],
            "limits": plain(asdict(self.limits)),
        }

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ConfigurationError: it is not the header of a log, or of another format version.
        """
        if not isinstance(data, dict) or data.get("format") != _FORMAT:
            raise ConfigurationError(f"not a log of format {_FORMAT}; record the run again")
        try:
            limits = {name: _number(value) for name, value in data["limits"].items()}
            return cls(
                policy=_of_type(str, data["policy"]["name"]),
                options=_of_type(dict, data["policy"]["options"]),
                processors=tuple(decode_processor(each) for each in data["processors"]),
                limits=Limits(**limits),
                scenario=_of_type(str, data["scenario"]),
            )
        except _WRONG as error:
            raise ConfigurationError(f"damaged header ({error!r}); record the run again") from error


class Step(NamedTuple):
    """One step of a dispatcher.

    Attributes:
        at_s: The moment it was told.
        event: What happened.
        commands: What it commanded, as `codec.encode_command` writes it.
    """

    at_s: float
    event: Event
    commands: list[Any]


class EventLog:
    """Observer that writes every step to a text stream; see `recording`.

    A run goes on if its log cannot be written any more.

    Attributes:
        problem: Why the log ends before the run does; empty if it does not.
    """

    def __init__(self, stream: TextIO, header: LogHeader) -> None:
        self.problem = ""
        self._stream: TextIO | None = stream
        self._write(header.to_json())

    def observe(self, event: Event, commands: Sequence[Command], now: float) -> None:
        """Write a step; does nothing once the log is closed."""
        self._write([now, encode_event(event), [encode_command(each) for each in commands]])

    def close(self) -> None:
        """Finish the file."""
        stream, self._stream = self._stream, None
        if stream is not None:
            try:
                stream.close()
            except OSError as error:
                self.problem = self.problem or _reason(error)

    def _write(self, value: Any) -> None:
        stream = self._stream
        if stream is None:
            return
        try:
            stream.write(json.dumps(value, separators=(",", ":"), allow_nan=False) + "\n")
        except OSError as error:
            self.problem = _reason(error)
            self._stream = None


@contextmanager
def recording(path: Path, header: LogHeader) -> Iterator[EventLog]:
    """Open a log for one run.

    Raises:
        ConfigurationError: the file cannot be written.
    """
    try:
        log = EventLog(_open(path, "wt"), header)
    except OSError as error:
        raise ConfigurationError(
            f"cannot write {path}: {_reason(error)}; name another file"
        ) from error
    try:
        yield log
    finally:
        log.close()


def read_log(path: Path) -> Iterator[LogHeader | Step]:
    """Read a log step by step: first the header, then the steps.

    Raises:
        ConfigurationError: the file cannot be read, is no log, or is damaged; names the line.
        UnknownNameError: a policy is not installed; names the line, too.
    """
    number = 0
    try:
        with _open(path, "rt") as stream:
            for number, line in enumerate(iter(partial(stream.readline, _MOST_LINE), ""), 1):
                if len(line) == _MOST_LINE:
                    raise ValueError(f"a line has more than {_MOST_LINE} characters")
                if number == 1:
                    yield LogHeader.from_json(parse_json(line))
                else:
                    at_s, event, commands = parse_json(line)
                    yield Step(_moment(at_s), decode_event(event), _of_type(list, commands))
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigurationError(f"cannot read {path}: {_reason(error)}") from error
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}:{number}: {error}") from error
    except UnknownNameError as error:  # of a policy
        raise UnknownNameError(f"{path}:{number}: {error}") from error
    except _WRONG as error:
        raise ConfigurationError(
            f"{path}:{number}: {error}; the line is damaged, or the end of the log is missing: "
            "record the run again, or cut the log before that line"
        ) from error
    if not number:
        raise ConfigurationError(f"{path} is empty; record the run again")


def _number(value: Any) -> Any:
    """Read a number as `plain` writes it: a text if it is not finite."""
    number = float(value) if isinstance(value, str) else value
    if not (number is None or isinstance(number, int | float)) or number != number:
        raise TypeError(f"{value!r} is no number")
    return number


def _moment(value: Any) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{value!r} is no moment in seconds")
    return float(value)


def _of_type(kind: type[T], value: Any) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value


def _open(path: Path, mode: str) -> TextIO:
    if path.name.endswith(".gz"):
        return cast(TextIO, gzip.open(path, mode, compresslevel=1, encoding="utf-8"))
    return cast(TextIO, path.open(mode, encoding="utf-8"))


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)
