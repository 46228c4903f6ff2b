"""Place: a span on processors that share one session of it: loaded and evicted at once."""

from __future__ import annotations

import math
from typing import NamedTuple

from coinfer.machine.span import Span

__all__ = ["Loadable", "Place"]


class Loadable(NamedTuple):
    """What a plan says of a place.

    Attributes:
        span: The span of the variant.
        processors: Those that share one session of it.
        pool: The memory in which it is.
        size_bytes: What it takes there: weights, and activations at the largest planned batch.
        load_s: Seconds to load it.
        content: What it is loaded of: variants of the same content share a place. Empty: of
            nothing that others have.
        is_loaded: Whether it is there from the start.
        is_pinned: Whether it is never evicted, once it is there.
    """

    span: Span
    processors: tuple[str, ...]
    pool: str
    size_bytes: int
    load_s: float
    content: str = ""
    is_loaded: bool = False
    is_pinned: bool = False


class Place:
    """A span on processors that share a session, loaded or not.

    Attributes:
        id: Its number; loads and evictions name it.
        span: The units.
        processors: Those that share it.
        pool: Name of the memory in which it is.
        size: Bytes that it takes there.
        load_s: Seconds to load it: what the plan says, corrected by what is observed.
        variants: What is run from it. Several variants may have the same content.
        is_loaded: Whether it is there.
        is_loading: Whether it is on its way.
        is_pinned: Whether it is never evicted.
        is_draining: Whether it must go as soon as it does not run: nothing more starts from it.
        is_fresh: Whether nothing ran from it since it was loaded.
        running: Number of executions that use it now.
        since_s: When it was loaded, or when loading began.
        failures: How often in a row loading failed.
        retry_s: The moment from which loading may be tried again.
        due_s: While it is not there: when it should be, if it is loaded for whom it is wanted by;
            infinite if it has no room at all, or nobody wants it.
        is_retired: Whether nothing will ever run from it again.
    """

    __slots__ = (
        "due_s",
        "failures",
        "id",
        "is_draining",
        "is_fresh",
        "is_loaded",
        "is_loading",
        "is_pinned",
        "is_retired",
        "load_s",
        "pool",
        "processors",
        "retry_s",
        "running",
        "since_s",
        "size",
        "span",
        "variants",
    )

    def __init__(self, number: int, loadable: Loadable) -> None:
        self.id = number
        self.span = loadable.span
        self.processors = loadable.processors
        self.pool = loadable.pool
        self.size = float(loadable.size_bytes)
        self.load_s = loadable.load_s
        self.is_loaded = loadable.is_loaded
        self.is_pinned = loadable.is_pinned
        self.is_loading = self.is_fresh = self.is_draining = self.is_retired = False
        self.variants: list[str] = []
        self.running = 0
        self.failures = 0
        self.since_s = self.retry_s = -math.inf
        self.due_s = math.inf
