"""The exceptions coinfer raises on purpose, as one tree.

    CoinferError
    ├── CallerError                 the caller's fault: the message names the thing and the remedy
    │   ├── ModelError              a model file that cannot be used
    │   ├── InputError              inputs that do not fit the model
    │   ├── ScenarioError           a scenario file that is wrong; names file, line and field
    │   ├── UnknownNameError        no policy, backend, model, processor or network of that name
    │   ├── ConfigurationError      options that contradict each other or the machine
    │   ├── MethodNotAllowedError   a request to a server by a method that its path does not have
    │   ├── UnauthenticatedError    a request to a server without a valid token
    │   ├── ForbiddenError          a request to a server for what it was not told to allow
    │   └── TooLargeError           a request to a server beyond its limits
    ├── SystemFaultError            the system's fault
    │   ├── ExecutionError          a run failed; names the model and the processor
    │   ├── BackendError            a backend cannot be loaded or cannot compile a model
    │   ├── PolicyError             a policy raised or broke an invariant
    │   ├── NotOfferedError         a server does not offer this part of a protocol
    │   └── InvariantError          the core found its own state inconsistent: a bug
    └── CapacityError               nobody's fault
        ├── RejectedError           the admission limit is reached
        ├── DroppedError            the deadline passed, or could not be met, before the start
        ├── NotReadyError           a server that still loads what it needs
        └── ClosedError             the engine is stopping or the model is being unloaded

A cancelled request raises `concurrent.futures.CancelledError`, as any future does.
Each class carries the status that a server answers with. This module imports nothing of coinfer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar, Self

__all__ = [
    "BackendError",
    "CallerError",
    "CapacityError",
    "ClosedError",
    "CoinferError",
    "ConfigurationError",
    "DroppedError",
    "ExecutionError",
    "ForbiddenError",
    "InputError",
    "InvariantError",
    "MethodNotAllowedError",
    "ModelError",
    "NotOfferedError",
    "NotReadyError",
    "PolicyError",
    "RejectedError",
    "ScenarioError",
    "SystemFaultError",
    "TooLargeError",
    "UnauthenticatedError",
    "UnknownNameError",
]


_MOST_NAME = 250
_LONG_WORD = re.compile(r"\S{1000,}")


def _ends(word: re.Match[str]) -> str:
    return f"{word[0][:200]}[...]{word[0][-100:]}"


class CoinferError(Exception):
    """Root of the tree. Catch this to catch everything coinfer raises on purpose."""

    http_status: ClassVar[int] = 500
    grpc_status: ClassVar[str] = "UNKNOWN"

    def __str__(self) -> str:
        r"""Return the message, as a terminal or a log may show it: names come from files.

        Control characters are escapes, and of a word without end only its ends are left.

        >>> print(CoinferError("unknown operator \x1b[31m"))
        unknown operator \x1b[31m
        """
        text = super().__str__()
        if not text.isprintable():
            text = "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)
        return _LONG_WORD.sub(_ends, text)


class CallerError(CoinferError):
    """The caller asked for something that cannot be done as asked."""

    http_status = 400
    grpc_status = "INVALID_ARGUMENT"


class ModelError(CallerError):
    """A model file is missing, corrupt, unsafe or unsupported."""


class InputError(CallerError):
    """Inputs have a wrong name, dtype or shape."""


class ScenarioError(CallerError):
    """A scenario file is malformed; the message names file, line and field."""


class UnknownNameError(CallerError):
    """A name that is not known, with the names that are."""

    http_status = 404
    grpc_status = "NOT_FOUND"

    @classmethod
    def of(cls, kind: str, name: str, known: Iterable[str], *, hint: str = "") -> Self:
        """Build the message: what is unknown, the nearest known name, all known names."""
        names, name = (
            sorted(known),
            name if len(name) <= _MOST_NAME else f"{name[:_MOST_NAME]}[...]",
        )
        near = get_close_matches(name, names, n=1)
        guess = f" Did you mean {near[0]!r}?" if near else ""
        listed = ", ".join(names) or "none"
        return cls(f"unknown {kind} {name!r}.{guess} Known: {listed}.{' ' + hint if hint else ''}")


class ConfigurationError(CallerError):
    """Options contradict each other or what the machine has."""


class MethodNotAllowedError(CallerError):
    """A request to a server by a method of HTTP that its path does not have.

    Attributes:
        allowed: The methods that it has.

    >>> error = MethodNotAllowedError.of("PUT", "/v2", ["GET", "HEAD"])
    >>> str(error), error.allowed
    ('there is no PUT for /v2; it takes GET, HEAD', ('GET', 'HEAD'))
    """

    http_status = 405
    grpc_status = "UNIMPLEMENTED"
    allowed: tuple[str, ...] = ()

    @classmethod
    def of(cls, method: str, path: str, allowed: Iterable[str]) -> Self:
        """Build the message: what was asked, and what is possible."""
        methods = tuple(allowed)
        error = cls(f"there is no {method} for {path}; it takes {', '.join(methods)}")
        error.allowed = methods
        return error


class UnauthenticatedError(CallerError):
    """A request to a server that asks for tokens has none, or one that is not valid."""

    http_status = 401
    grpc_status = "UNAUTHENTICATED"


class ForbiddenError(CallerError):
    """A request to a server for what its owner did not allow, e.g. to unload a model."""

    http_status = 403
    grpc_status = "PERMISSION_DENIED"


class TooLargeError(CallerError):
    """A request to a server has more bytes, dimensions or tensors than it takes."""

    http_status = 413
    grpc_status = "RESOURCE_EXHAUSTED"


class SystemFaultError(CoinferError):
    """Something of ours, of a backend or of a device failed."""

    grpc_status = "INTERNAL"


class ExecutionError(SystemFaultError):
    """A run of a model on a processor failed and could not be retried elsewhere.

    Attributes:
        reason: Why, without saying what ran where; empty if that is not known apart.
        is_of_inputs: Whether the library refused what the request brought, its sizes or values:
            the same request fails again, and others do not.

    >>> error = ExecutionError.of("model 'a' on processor 'npu'", "out of memory")
    >>> str(error), error.reason
    ("model 'a' on processor 'npu': out of memory", 'out of memory')
    """

    reason = ""
    is_of_inputs = False

    @classmethod
    def of(cls, what: str, reason: str, *, is_of_inputs: bool = False) -> Self:
        """Make the error of a run.

        Args:
            what: What ran where.
            reason: Why it failed.
            is_of_inputs: Whether the library refused what the request brought.
        """
        error = cls(f"{what}: {reason}")
        error.reason = reason
        error.is_of_inputs = is_of_inputs
        return error


class BackendError(SystemFaultError):
    """A backend is not installed, or cannot compile this model on this processor."""


class PolicyError(SystemFaultError):
    """A policy raised, or decided something that the core must not do."""


class NotOfferedError(SystemFaultError):
    """A server does not offer this part of a protocol."""

    http_status = 501
    grpc_status = "UNIMPLEMENTED"


class InvariantError(SystemFaultError):
    """The core found its own state inconsistent. This is a bug in coinfer."""


class CapacityError(CoinferError):
    """The request is fine, the system is fine, there is just not enough of it.

    Attributes:
        retry_after_s: Seconds after which the same may succeed; None if nobody can tell.
    """

    http_status = 503
    grpc_status = "UNAVAILABLE"
    retry_after_s: float | None = None


class RejectedError(CapacityError):
    """The admission limit is reached; try again later or raise the limit."""

    http_status = 429
    grpc_status = "RESOURCE_EXHAUSTED"


class DroppedError(CapacityError):
    """The deadline passed, or could not be met any more, before the request started."""

    http_status = 504
    grpc_status = "DEADLINE_EXCEEDED"


class NotReadyError(CapacityError):
    """A server still loads what it needs; try again in a moment."""


class ClosedError(CapacityError):
    """The engine is stopping, or the model is being unloaded."""


def first_line(error: BaseException) -> str:
    r"""Return the innermost cause in one line: libraries wrap it in pages of context.

    >>> first_line(ValueError("\nwrong shape\nat line 7"))
    'wrong shape'
    """
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
