"""Ctrl-C works in tests, and in what they start, also if they run in the background of a shell.

A shell without job control lets what it starts there ignore the signal.
"""

from __future__ import annotations

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
