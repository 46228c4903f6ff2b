"""Access: who may ask, by tokens, and how often. Compared in constant time; never logged."""

from __future__ import annotations

import hashlib
import hmac
import math
import threading
from collections.abc import Iterable
from pathlib import Path

from coinfer.errors import ConfigurationError, RejectedError, UnauthenticatedError
from coinfer.runtime import clock
from coinfer.units import parse_rate

__all__ = ["Access", "Tenant", "read_tokens", "weights_of"]

_SCHEME = "bearer "
_LEAST_LENGTH = 16
_WEIGHT = "weight="
_LEAST_WEIGHT, _MOST_WEIGHT = 1e-3, 1e6


class Tenant:
    """One who may ask, and how often: bursts of a second's worth, and the rate after that.

    Args:
        name: What logs and metrics call it.
        token: Its token; only a digest is kept.
        rate_per_s: Inferences that it may ask for per second; infinite: any number.
        weight: Its share of processors' time beside others', when it is short; None: no tenant is
            to have a share, or this one has 1.

    Attributes:
        n_taken: Inferences that it was let ask for.
        n_too_often: Inferences that it asked for too often.

    >>> tenant = Tenant("a", "0123456789abcdef", rate_per_s=2.0)
    >>> [tenant.take(at_s) for at_s in (0.0, 0.1, 0.6)]
    [None, None, None]
    >>> tenant.take(0.6)
    Traceback (most recent call last):
    coinfer.errors.RejectedError: tenant 'a' asks for more than 2 inferences per second
    """

    __slots__ = (
        "_left",
        "_seen_s",
        "_taking",
        "digest",
        "n_taken",
        "n_too_often",
        "name",
        "rate_per_s",
        "weight",
    )

    def __init__(
        self,
        name: str,
        token: str,
        rate_per_s: float = math.inf,
        weight: float | None = None,
    ) -> None:
        self.name = name
        self.weight = weight
        self.digest = _digest(token)
        self.rate_per_s = rate_per_s
        self._left = max(1.0, rate_per_s)
        self._seen_s: float | None = None
        self._taking = threading.Lock()
        self.n_taken = self.n_too_often = 0

    def take(self, now_s: float | None = None) -> None:
        """Note an inference; any thread may.

        Raises:
            RejectedError: the tenant asks too often.
        """
        with self._taking:
            self._take(clock.now() if now_s is None else now_s)

    def _take(self, at_s: float) -> None:
        if self.rate_per_s == math.inf:
            self.n_taken += 1
            return
        passed_s = 0.0 if self._seen_s is None else max(0.0, at_s - self._seen_s)
        self._seen_s = at_s
        left = self._left + passed_s * self.rate_per_s
        self._left = min(max(1.0, self.rate_per_s), left)
        if self._left < 1.0:
            self.n_too_often += 1
            error = RejectedError(
                f"tenant {self.name!r} asks for more than {self.rate_per_s:g} inferences per second"
            )
            error.retry_after_s = (1.0 - self._left) / self.rate_per_s
            raise error
        self._left -= 1.0
        self.n_taken += 1


class Access:
    """The tenants of a server. Without any, everybody may ask.

    All digests are compared with, so that neither the length nor the beginning of a token shows in
    how long it takes.

    >>> access = Access([Tenant("a", "0123456789abcdef")])
    >>> access.check("Bearer 0123456789abcdef").name
    'a'
    >>> Access().check("") is None
    True
    """

    def __init__(self, tenants: Iterable[Tenant] = ()) -> None:
        self._tenants = tuple(tenants)
        self.is_open = not self._tenants

    def check(self, authorization: str) -> Tenant | None:
        """See whether a client may ask.

        Args:
            authorization: What its header or metadata `authorization` says; empty: nothing.

        Returns:
            Who it is; None where everybody may ask.

        Raises:
            UnauthenticatedError: it has no token, or one that is not valid.
        """
        if not self._tenants:
            return None
        if authorization[: len(_SCHEME)].lower() != _SCHEME:
            raise UnauthenticatedError(
                "this server wants a token; send it as `Authorization: Bearer TOKEN`"
            )
        given, found = _digest(authorization[len(_SCHEME) :].strip()), None
        for tenant in self._tenants:  # no early end: it would tell which one fits
            if hmac.compare_digest(given, tenant.digest):
                found = tenant
        if found is None:
            raise UnauthenticatedError("the token is not valid here")
        return found


def weights_of(tenants: Iterable[Tenant]) -> dict[str, float]:
    """Return the weights of tenants by name; those without one have 1. Empty: none has one.

    Raises:
        ConfigurationError: a tenant with several tokens has several weights.

    >>> weights_of([Tenant("a", "0123456789abcdef", weight=3.0), Tenant("b", "fedcba9876543210")])
    {'a': 3.0, 'b': 1.0}
    """
    tenants = list(tenants)
    if all(tenant.weight is None for tenant in tenants):
        return {}
    said: dict[str, float] = {}
    for tenant in tenants:
        if (
            tenant.weight is not None
            and said.setdefault(tenant.name, tenant.weight) != tenant.weight
        ):
            raise ConfigurationError(
                f"tenant {tenant.name!r} has several weights; give all its tokens the same"
            )
    return {tenant.name: said.get(tenant.name, 1.0) for tenant in tenants}


def read_tokens(path: Path) -> list[Tenant]:
    """Read a file of tokens: per line a tenant's name and its token, and what limits it.

    That is a rate, `100/s`, and a weight, `weight=3`; both may be left out.

    Raises:
        ConfigurationError: it cannot be read, or a line is something else; tokens are not shown.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"tokens {path} cannot be read: {error}") from error
    tenants: list[Tenant] = []
    for number, line in enumerate(lines, 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        if not 2 <= len(words) <= 4:
            raise ConfigurationError(
                f"{path}:{number}: write NAME TOKEN, and if wanted 100/s and weight=3 behind it"
            )
        name, token, *terms = words
        if len(token) < _LEAST_LENGTH:
            raise ConfigurationError(
                f"{path}:{number}: the token of {name!r} has fewer than {_LEAST_LENGTH} characters"
            )
        rates = [term for term in terms if not term.startswith(_WEIGHT)]
        weights = [_weight(term, f"{path}:{number}") for term in terms if term not in rates]
        if len(rates) > 1 or len(weights) > 1:
            raise ConfigurationError(f"{path}:{number}: give {name!r} one rate and one weight")
        rate_per_s = parse_rate(rates[0]) if rates else math.inf
        tenants.append(Tenant(name, token, rate_per_s, weights[0] if weights else None))
    if not tenants:
        raise ConfigurationError(f"{path} has no token; write NAME TOKEN in each line")
    weights_of(tenants)
    return tenants


def _weight(term: str, where: str) -> float:
    try:
        weight = float(term.removeprefix(_WEIGHT))
    except ValueError:
        weight = math.nan
    if not _LEAST_WEIGHT <= weight <= _MOST_WEIGHT:
        raise ConfigurationError(
            f"{where}: {term!r} is no weight; write a number from {_LEAST_WEIGHT:g} to "
            f"{_MOST_WEIGHT:g}, e.g. weight=3"
        )
    return weight


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()
