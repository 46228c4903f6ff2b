"""Child: the process in which models are fused and the fused graph is written.

It reads the models from its standard input and writes one line of JSON to its standard output.
"""

from __future__ import annotations

import json
import pickle
import sys

from coinfer.artefacts.child import answering
from coinfer.errors import CoinferError
from coinfer.graph.fusing.fused_model import FusedModel, fuse_models

__all__ = ["main"]


def main() -> None:
    """Do what the standard input says."""
    answer = answering()
    models, name, path = pickle.load(sys.stdin.buffer)
    facts: dict[str, int] = {}
    refused = ""
    try:
        fused = fuse_models(models, name=name)
        fused.save(path)
        facts = _facts(fused)
    except (CoinferError, OSError, MemoryError) as error:
        refused = " ".join(str(error).split()) or type(error).__name__
    try:
        json.dump({"facts": facts, "refused": refused}, answer)
        answer.close()
    except BrokenPipeError:  # nobody waits for it any more
        pass


def _facts(fused: FusedModel) -> dict[str, int]:
    """Say how many operators each form was chosen for."""
    forms: dict[str, int] = {}
    for decision in fused.decisions:
        forms[decision.form.value] = forms.get(decision.form.value, 0) + 1
    return forms
