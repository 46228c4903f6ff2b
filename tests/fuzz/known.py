"""Known: faults that were seen and are not mended yet, as `Outcome.fault` names them.

They are counted, and fail nothing. Whoever mends one deletes it here.
"""

from __future__ import annotations

__all__ = ["KNOWN"]

KNOWN: frozenset[str] = frozenset()
