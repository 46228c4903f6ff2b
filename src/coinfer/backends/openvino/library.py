"""Import openvino without the events that it would send."""

from __future__ import annotations

import sys

# Importing openvino sends an event over the network, from a thread pool that stays. A library must
# not start that for its user; without this optional module openvino does not. A program that has
# imported openvino before has decided itself.
if "openvino" not in sys.modules and "openvino_telemetry" not in sys.modules:
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        import openvino as ov
    finally:
        del sys.modules["openvino_telemetry"]
else:
    import openvino as ov

# Its table of types is made at the first use. Two threads that use it first at the same moment wait
# for each other for ever: one has the interpreter's lock and waits for the table, the other makes
# the table and waits for the lock. So it is made here.
ov.Type.f32.to_dtype()

__all__ = ["ov"]
