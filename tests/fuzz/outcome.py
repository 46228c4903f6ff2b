"""Outcome: what a process did, and what of it is a fault. Knows no case and starts no process."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass

__all__ = ["MEMORY_BYTES", "Outcome"]

MEMORY_BYTES = 2 * 2**30
"""What no case may take."""

_LONGEST_LINE = 3000
_STATUSES = {0, 1, 2, 130}
_TRACEBACK = "Traceback (most recent call last)"
_REPLAY_DIFFERS = "differs: "
_VERIFIED = re.compile(r'^\d+ checked, [1-9]\d* removed$|^  "removed": \{$', re.M)
"""What `coinfer cache verify` prints if something was damaged; its status is 1 then."""

_ERROR = re.compile(r"^coinfer: (error: |interrupted)", re.M)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x9b]")
_FRAME = re.compile(r'File "[^"]*/(coinfer/[\w/]+\.py)", line \d+, in (\S+)')
_RAISED = re.compile(r"^([A-Za-z_][\w.]*)(?::|$)", re.M)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was seen of a process.

    Attributes:
        status: Exit status; minus the signal that ended it.
        out: Standard output.
        err: Standard error.
        details: What the product wrote into files about bugs of its own.
        peak_bytes: Most memory that was resident.
        outside: Files that it changed outside of its folder.
        interrupted: It was told to stop because it took long.
        hung: It had to be killed.
    """

    status: int
    out: str = ""
    err: str = ""
    details: str = ""
    peak_bytes: int = 0
    outside: tuple[str, ...] = ()
    interrupted: bool = False
    hung: bool = False

    @property
    def fault(self) -> str | None:
        """Say what is wrong, the same for the same cause; None: a success or a clean error."""
        if self.hung:
            return "hang"
        is_clean = not self.err or (_ERROR.match(self.err) and _TRACEBACK not in self.err)
        if self.interrupted and self.status == -signal.SIGINT and is_clean:
            return None  # the interpreter was on its way out, where nothing handles signals
        if self.status < 0:
            return f"crash {signal.Signals(-self.status).name}"
        if self.details or _TRACEBACK in self.err or "Exception ignored" in self.err:
            return self._raised()
        if self.peak_bytes > MEMORY_BYTES or "out of memory" in self.err:
            return "memory"
        if self.outside:
            return f"wrote {self.outside[0]}"
        return self._unclean()

    @property
    def verdict(self) -> str:
        """One of `fault`, `stopped`, `success`, `error`."""
        if self.fault is not None:
            return "fault"
        if self.interrupted:
            return "stopped"
        return "success" if self.status == 0 else "error"

    def _unclean(self) -> str | None:
        if self.status not in _STATUSES:
            return f"status {self.status}"
        if _CONTROL.search(self.err) or _CONTROL.search(self.out):
            return "control characters in what is printed"
        if self.status == 0:
            return None
        found = self.out.startswith(_REPLAY_DIFFERS) or _VERIFIED.search(self.out)
        if self.status == 1 and found:
            return None
        errors = [line for line in self.err.splitlines() if _ERROR.match(line)]
        if len(errors) != 1:
            return f"{len(errors)} error lines"
        if len(errors[0]) > _LONGEST_LINE:
            return "an error line without end"
        return "bug in coinfer" if "bug in coinfer" in self.err else None

    def _raised(self) -> str:
        said = self.details or self.err
        last = said[said.rfind(_TRACEBACK) :]
        raised, frames = _RAISED.findall(last), _FRAME.findall(last)
        where = ":".join(frames[-1]) if frames else "?"
        return f"{raised[0] if raised else '?'} at {where}"
