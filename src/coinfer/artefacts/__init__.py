"""Artefacts: models as a library has prepared them, kept on disk. Knows no inference library."""

from coinfer.artefacts.artefact import Artefact, Lease
from coinfer.artefacts.settings import default_store
from coinfer.artefacts.store import ArtefactStore, Entry, Made, MakeError

__all__ = ["Artefact", "ArtefactStore", "Entry", "Lease", "Made", "MakeError", "default_store"]
