"""Settings: where artefacts are kept, and how many bytes of them. The environment decides."""

from __future__ import annotations

import os

from coinfer.artefacts.store import ArtefactStore
from coinfer.cache_folder import cache_folder
from coinfer.errors import ConfigurationError
from coinfer.units import parse_bytes

__all__ = ["LIMIT_BYTES", "VARIABLE", "default_store"]

VARIABLE = "COINFER_ARTEFACTS"
"""Environment variable with another limit, such as `20GiB`; `0` keeps and uses none."""

LIMIT_BYTES = 8 * 2**30


def default_store() -> ArtefactStore:
    """Return the store in the user's cache folder.

    Raises:
        ConfigurationError: the variable holds no size, or there is no safe place for a cache.
    """
    text = os.environ.get(VARIABLE, "")
    try:
        limit = parse_bytes(text) if text else LIMIT_BYTES
    except ConfigurationError as error:
        raise ConfigurationError(f"{VARIABLE}: {error}") from error
    return ArtefactStore(cache_folder() / "artefacts", limit)
