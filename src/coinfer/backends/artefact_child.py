"""Artefact child: the process in which a library prepares a model, and writes down what it made.

It reads what to make from its standard input and writes one line of JSON to its standard output.
"""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from typing import Any

from coinfer.artefacts import Made
from coinfer.artefacts.child import answering
from coinfer.backends.registry import get_backend
from coinfer.errors import CoinferError

__all__ = ["main"]

_FULL_BYTES = 2**26
"""With less room than this, what went wrong may be that the disk is full."""


def main() -> None:
    """Do what the standard input says."""
    answer = answering()
    name, model, processor, folder = pickle.load(sys.stdin.buffer)
    backend: Any = get_backend(name)
    problem = ""
    try:
        made = backend.make_artefact(model, processor, folder)
    except OSError as error:
        made, problem = Made(), str(error.strerror or error)
    except CoinferError as error:
        made = Made(refused=str(error))
    if (made.refused or problem) and shutil.disk_usage(folder).free < _FULL_BYTES:
        made, problem = Made(), problem or "the disk is full"
    try:
        json.dump({"facts": made.facts, "refused": made.refused, "problem": problem}, answer)
        answer.close()
    except BrokenPipeError:  # nobody waits for it any more
        shutil.rmtree(folder, ignore_errors=True)
