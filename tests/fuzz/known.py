"""Known: faults that were seen and are not mended yet, as `Outcome.fault` names them.

They are counted, and fail nothing. Whoever mends one deletes it here.
"""

from __future__ import annotations

__all__ = ["KNOWN"]

KNOWN: frozenset[str] = frozenset(
    {
        "AttributeError at coinfer/backends/onnxruntime/backend.py:sharing_key",
        "AttributeError at coinfer/model/inputs.py:__call__",
        "OverflowError at coinfer/runtime/engine.py:_absolute",
        "RecursionError at coinfer/cli/compare.py:_read",
        "TypeError at coinfer/graph/cost.py:_activation",
        "TypeError at coinfer/machine/profile.py:<genexpr>",
        "TypeError at coinfer/plan/difference.py:differences",
        "ValueError at coinfer/model/inputs.py:_random",
        "an error line without end",
        "control characters in what is printed",
        "numpy._core._exceptions._ArrayMemoryError at coinfer/workload/inputs.py:_read_arrays",
        "zlib.error at coinfer/replay/event_log.py:read_log",
    }
)
