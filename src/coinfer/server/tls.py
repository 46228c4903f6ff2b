"""Tls: the files of a server's certificate. A value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Tls"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """The files of a server's certificate.

    Attributes:
        certificate: Of the server and those that vouch for it, in PEM.
        key: Its private key, in PEM.
        client_authorities: Who vouches for clients, in PEM; None: clients need no certificate.
    """

    certificate: Path
    key: Path
    client_authorities: Path | None = None
