"""Byte mutation: flip, cut, insert and repeat bytes of any file. Knows no format."""

from __future__ import annotations

import random

__all__ = ["mutate_bytes"]


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Return bytes that differ in one to three places."""
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        if not changed:
            return b"\0"
        _change(changed, rng)
    return bytes(changed)


def _change(data: bytearray, rng: random.Random) -> None:
    # Formats keep their structure at both ends.
    ends = min(len(data), 512)
    at = rng.choice((rng.randrange(len(data)), rng.randrange(ends), -1 - rng.randrange(ends)))
    at %= len(data)
    match rng.randrange(6):
        case 0:
            data[at] ^= 1 << rng.randrange(8)
        case 1:
            data[at] = rng.choice((0, 0xFF, 0x7F, 0x80, 0x0A, 0x22, 0x7B, rng.randrange(256)))
        case 2:
            del data[at:]
        case 3:
            del data[at : at + rng.randrange(1, 40)]
        case 4:
            data[at:at] = rng.randbytes(rng.randrange(1, 20))
        case _:
            data[at:at] = data[at : at + rng.randrange(1, 200)] * rng.randrange(1, 5)
