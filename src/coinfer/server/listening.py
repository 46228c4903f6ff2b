"""Listening: the socket of a front end, bound before anything else is done."""

from __future__ import annotations

import errno
import ipaddress
import socket
import sys

from coinfer.errors import BackendError, ConfigurationError

__all__ = ["bound_socket", "is_loopback"]

_BACKLOG = 2048


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches an address.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bound_socket(host: str, port: int, what: str) -> socket.socket:
    """Bind a socket that is to be listened on.

    Args:
        host: An address of this machine.
        port: 0: any that is free.
        what: What it is for, for messages.

    Raises:
        ConfigurationError: the port is taken, or the address is none of this machine.
        BackendError: the system refuses for another reason.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigurationError(f"{what}: {host!r} is no address of this machine") from error
    try:
        if sys.platform != "win32":  # there, it would let two servers share a port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen(_BACKLOG)
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        match error.errno:
            case errno.EADDRINUSE:
                text = f"port {port} is in use; name another one, or end what uses it"
            case errno.EACCES:
                text = f"port {port} may only be used by an administrator; name one from 1024"
            case errno.EADDRNOTAVAIL:
                text = f"{host} is no address of this machine"
            case _:
                raise BackendError(f"{what}: {error.strerror}") from error
        raise ConfigurationError(f"{what}: {text}") from error
    return bound
