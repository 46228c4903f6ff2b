"""Answers of HTTP read from a bare connection."""

from __future__ import annotations

from typing import BinaryIO

__all__ = ["read_answer"]


def read_answer(file: BinaryIO) -> tuple[int, dict[str, str], bytes]:
    """Read one answer: its status, headers and body, of which the length is given."""
    status = int(file.readline().split()[1])
    headers = {}
    while line := file.readline().strip():
        name, _, value = line.decode().partition(": ")
        headers[name] = value
    return status, headers, file.read(int(headers["content-length"]))
