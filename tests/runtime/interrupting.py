"""Raise KeyboardInterrupt at the k-th point at which CPython looks for signals, as Ctrl-C may.

A tracing function stands for the signal handler, so that each point has its number. The points are
those of CPython 3.11: at the entry of a function, after a call, and at a backward jump.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dis
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import coinfer

_ROOT = Path(coinfer.__file__).parent
RUNTIME = tuple(str(_ROOT / part) for part in ("runtime", "api"))
STDLIB = (
    threading.__file__,
    queue.__file__,
    contextlib.__file__,
    str(Path(concurrent.futures.__file__).parent),
)
"""Not logging: an exception inside of that can leave its lock taken, whoever logs."""

_CALLS = {dis.opmap[name] for name in ("CALL", "CALL_FUNCTION_EX") if name in dis.opmap}
_JUMPS = {code for name, code in dis.opmap.items() if "JUMP_BACKWARD" in name}


class _Interrupter:
    def __init__(self, at: int, where: tuple[str, ...]) -> None:
        self.left = at
        self.where = where
        self.raised = False

    def entered(self, frame: FrameType, event: str, arg: Any) -> Callable[..., Any] | None:
        if not frame.f_code.co_filename.startswith(self.where):
            return None
        self._point()
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        called = False
        code = frame.f_code.co_code

        def stepped(frame: FrameType, event: str, arg: Any) -> Callable[..., Any]:
            nonlocal called
            if event == "opcode":
                opcode = code[frame.f_lasti]
                if called or opcode in _JUMPS:
                    self._point()
                called = opcode in _CALLS
            return stepped

        return stepped

    def _point(self) -> None:
        self.left -= 1
        if self.left < 0 and not self.raised:
            self.raised = True
            raise KeyboardInterrupt


def interrupted(act: Callable[[], object], at: int, *, where: tuple[str, ...]) -> bool:
    """Do something, interrupted at its point of this number; False if it has no such point."""
    interrupter = _Interrupter(at, where)
    before = sys.gettrace()
    sys.settrace(interrupter.entered)
    try:
        act()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return interrupter.raised


def each_point(
    act: Callable[[], object], *, where: tuple[str, ...] = RUNTIME + STDLIB, step: int = 1
) -> Iterator[int]:
    """Do something again and again, each time interrupted `step` points later; yield after each."""
    at = 0
    while interrupted(act, at, where=where):
        yield at
        at += step
