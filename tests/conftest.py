"""What all tests need: Ctrl-C, no terminal, short garbage collections, no limits on an example."""

from __future__ import annotations

import gc
import os
import signal

import pytest
from hypothesis import HealthCheck, settings

# Ctrl-C works in tests, and in what they start, also if they run in the background of a shell. One
# without job control lets what it starts there ignore the signal.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The output of the command line is as wide as in a pipe. Workers of pytest-xdist inherit a width of
# 80 from readline.
for name in ("COLUMNS", "LINES"):
    os.environ.pop(name, None)

# Tests leave nothing in the user's cache; those of artefacts have a cache of their own.
os.environ["COINFER_ARTEFACTS"] = "0"

# How long an example takes says nothing while other tests run beside it.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")


@pytest.fixture(scope="module", autouse=True)
def short_collections() -> None:
    """Let collections pass over what pytest and the imports made.

    Measuring memory collects garbage before each reading; without this, one takes a tenth of a
    second, and some tests take a hundred of them.
    """
    gc.collect()
    gc.freeze()
