"""Hostile: numbers and texts that files should not have, or that only look so. Pure data."""

from __future__ import annotations

import math

__all__ = ["FLOATS", "INTEGERS", "PATHS", "TEXTS", "VALUES"]

INTEGERS = (0, -1, 1, 2, 7, 2**15, 2**31 - 1, -(2**31), 2**31, 2**40, 2**62, 2**63 - 1, -(2**63))
FLOATS = (0.0, -0.0, -1.0, 1e-320, 1e30, -1e30, math.nan, math.inf, -math.inf)
PATHS = ("/dev/zero", "/dev/null", ".", "..", "~", "gone", "", "/", "a" * 300, "in.npz", "m.onnx")
TEXTS = (
    "", " ", "a" * 5000, "a/b", "../../up", "[/red]", "[bold]", "\x1b[31m", "a\nb", "\0", "é\u202e",
    "{}", "%s", "zoo:tiny_cnn", "lib:disb-a", "null", "1", "-", "*", "\U0001f600", "x.y", "CON",
)  # fmt: skip
_DURATIONS = ("0s", "-1ms", "1e400s", "nan s", "5 parsecs", "1/0s", "1e-400s", "10", "1us", "1e9/s")
VALUES = (
    None, True, False, "", [], {}, [[]], {"a": {"b": {}}}, [None], {1: 2}, {None: None},
    *INTEGERS, *FLOATS, 1e308, 10**30, 0.5, 3, *TEXTS, *PATHS, *_DURATIONS,
)  # fmt: skip
