"""Access: who may ask, by tokens. Compared in constant time; never logged."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from coinfer.errors import UnauthenticatedError

__all__ = ["Access"]

_SCHEME = "bearer "


class Access:
    """The tokens of a server. Without any, everybody may ask.

    Only digests of tokens are kept, and all of them are compared with, so that neither the length
    nor the beginning of a token shows in how long it takes.

    >>> access = Access(["secret"])
    >>> access.check("Bearer secret")
    >>> access.is_open
    False
    """

    def __init__(self, tokens: Iterable[str] = ()) -> None:
        self._digests = [_digest(token) for token in tokens]

    @property
    def is_open(self) -> bool:
        """Whether everybody may ask."""
        return not self._digests

    def check(self, authorization: str) -> None:
        """See whether a client may ask.

        Args:
            authorization: What its header or metadata `authorization` says; empty: nothing.

        Raises:
            UnauthenticatedError: it has no token, or one that is not valid.
        """
        if not self._digests:
            return
        if authorization[: len(_SCHEME)].lower() != _SCHEME:
            raise UnauthenticatedError(
                "this server wants a token; send it as `Authorization: Bearer TOKEN`"
            )
        given = _digest(authorization[len(_SCHEME) :].strip())
        # No `any`, which would stop at the first that fits.
        if not sum([hmac.compare_digest(given, digest) for digest in self._digests]):
            raise UnauthenticatedError("the token is not valid here")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()
