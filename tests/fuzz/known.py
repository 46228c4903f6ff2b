"""Known: faults that were seen and are not mended yet, as `Outcome.fault` names them.

They are counted, and fail nothing. Whoever mends one deletes it here.
"""

from __future__ import annotations

__all__ = ["KNOWN"]

KNOWN: frozenset[str] = frozenset(
    {
        "AttributeError at coinfer/backends/onnxruntime/backend.py:sharing_key",
        "AttributeError at coinfer/machine/contention.py:__post_init__",
        "AttributeError at coinfer/model/inputs.py:__call__",
        "OverflowError at coinfer/runtime/engine.py:_absolute",
        "TypeError at coinfer/plan/difference.py:differences",
        "TypeError at coinfer/runtime/model_store.py:_load_one",
        "UnicodeEncodeError at coinfer/plan/plan_folder.py:read_bytes",
        "an error line without end",
        "control characters in what is printed",
        "rich.errors.NotRenderableError at coinfer/metrics/table.py:_processor_table",
    }
)
