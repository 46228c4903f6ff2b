"""Keep cores awake: processes of the lowest scheduling class spin on them, so they never go idle.

An idle core takes a while to wake up and to become fast again. On a virtual machine the host may
also put two virtual cores on one physical core when they wake; both then take nearly twice as long
until the host moves them apart. A core that never idles pays neither. It costs power, and processor
time where the host counts that. Knows no processor and no backend.

The spinning process yields the core in every round. Linux gives even the lowest class a turn now
and then, at the latest when a thread wakes up beside it. Without the yield the process would keep
the core until the next tick of the clock, some milliseconds: one of ten short inferences then took
that much longer.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager

from coinfer.hardware.cgroup import cpu_quota
from coinfer.threads.priority import above_idle_class

__all__ = ["awake"]

_SPIN = """
import os, signal, sys
core, parent = map(int, sys.argv[1:])
# A terminal sends Ctrl-C to all processes. The parent finishes its work first, so ignore it.
signal.signal(signal.SIGINT, signal.SIG_IGN)
try:
    os.sched_setaffinity(0, {core})
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
except OSError as error:
    sys.exit(str(error))
print("spinning", flush=True)
while os.getppid() == parent:
    for _ in range(100):
        os.sched_yield()
"""
"""What a process does that keeps a core awake; it ends when nobody needs it any more."""


@contextmanager
def awake(cores: Collection[int]) -> Iterator[str]:
    """Let cores spin while nothing else wants them; every other thread goes before that.

    Args:
        cores: Operating-system core numbers.

    Yields:
        Why they cannot be kept awake; empty if they are. They cannot on systems other than Linux,
        where a container forbids it, and where processor time is limited, as that would be used up.

    >>> with awake(()) as refusal:
    ...     refusal
    ''
    """
    refusal = "" if sys.platform == "linux" else f"{sys.platform} has no such scheduling class"
    if getattr(sys, "frozen", False):
        refusal = "a frozen program has no interpreter that could spin"
    elif cpu_quota() is not None:
        refusal = "processor time is limited here, and that would be used up"
    with ExitStack() as stack:
        if cores and not refusal:
            stack.enter_context(above_idle_class())  # else they would share with what spins
        for core in cores:
            refusal = refusal or _spin(core, stack)
        yield f"cores are not kept awake: {refusal}" if refusal else ""


def _spin(core: int, stack: ExitStack) -> str:
    """Start a process that keeps a core awake; return why not, or nothing."""
    # A thread that spins would hold the interpreter lock, so this is a process.
    command = [sys.executable, "-I", "-S", "-c", _SPIN, str(core), str(os.getpid())]
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True
        )
    except OSError as error:
        return f"no process can be started: {error}"
    stack.callback(_end, process)
    assert process.stdout is not None  # it is a pipe
    assert process.stderr is not None  # it is a pipe
    return "" if process.stdout.readline() else process.stderr.read().strip()


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()
