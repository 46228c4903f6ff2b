"""Paging: keep a model's weights in a file until they are read. Knows no backend."""

from __future__ import annotations

import dataclasses
import logging

from coinfer.cache_folder import cache_folder
from coinfer.errors import CoinferError
from coinfer.model.model import Model

__all__ = ["in_file", "paged"]

_log = logging.getLogger(__name__)


def in_file(model: Model) -> Model | None:
    """Return a model whose weights are read from its file when they are needed.

    One of few weights, or with all of them in other files, is returned as bytes. None if neither is
    possible.
    """
    content = model.content
    found = content.in_file(model.source) if model.source is not None else None
    if found is None and content.is_small:
        found = content.detached()
    return None if found is None else dataclasses.replace(model, content=found)


def paged(model: Model) -> Model:
    """Return a model whose weights are not in memory; as it is where that cannot be done.

    The file has no name and goes with the process. It is in the cache's folder.
    """
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        return dataclasses.replace(model, content=model.content.paged(folder))
    except (CoinferError, OSError) as error:
        _log.warning("model %r: its weights stay in memory: %s", model.name, error)
        return model
