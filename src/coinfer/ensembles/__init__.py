"""Ensembles: pipelines of models and small steps that answer one request together.

Their stages are requests of an engine like any other, so they batch with those of other pipelines.
"""

from __future__ import annotations

from coinfer.ensembles.ensemble import Ensemble
from coinfer.ensembles.future import EnsembleFuture
from coinfer.ensembles.signature import Signature
from coinfer.workload.ensemble import EnsembleDescription
from coinfer.workload.ensemble_file import load_ensemble, parse_ensemble

__all__ = [
    "Ensemble",
    "EnsembleDescription",
    "EnsembleFuture",
    "Signature",
    "load_ensemble",
    "parse_ensemble",
]
