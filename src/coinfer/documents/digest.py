"""Digest: a short name for a value that `json.dumps` writes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

__all__ = ["digest_of"]


def digest_of(parts: Mapping[str, object]) -> str:
    """Return a digest of a key, usable as a file name; the order of the parts does not count.

    >>> digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    True
    """
    text = json.dumps(parts, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
