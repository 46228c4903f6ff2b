"""Model store: the loaded models of an engine and their sessions. Knows no request and no thread.

One thread at a time may load or unload; any thread may read meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import NamedTuple

from coinfer.backends.base import Backend, Placement
from coinfer.backends.sessions import SessionStore
from coinfer.errors import ConfigurationError
from coinfer.graph.cut_model import CutModel
from coinfer.machine.processor import Processor, ordinary, overlaid_units, twins
from coinfer.machine.profile import Profile
from coinfer.machine.span import Span
from coinfer.model import Model
from coinfer.model.inputs import InputCheck
from coinfer.runtime.span_io import SpanIO, span_ios_of

__all__ = ["LoadedModel", "ModelStore"]


class LoadedModel(NamedTuple):
    """What came of loading a model.

    Attributes:
        profile: The entries for which there are sessions.
        left_out: Why a processor was left out, by its name.
        notes: What its sessions do without, and why.
    """

    profile: Profile
    left_out: Mapping[str, str]
    notes: tuple[str, ...]


class ModelStore:
    """Loaded models by name.

    Attributes:
        models: Those that take requests, each as what checks the inputs of one: the graphs and
            the weights are in the sessions, and need not be held a second time.
        span_ios: Per model, its spans as a request goes through them.
        store: The sessions.
    """

    def __init__(
        self, processors: Mapping[str, Processor], backends: Mapping[str, Backend]
    ) -> None:
        self.models: dict[str, InputCheck] = {}
        self.span_ios: dict[str, Mapping[Span, SpanIO]] = {}
        overlaid = overlaid_units(processors.values())
        yielding = {p.name for p in processors.values() if not p.units.isdisjoint(overlaid)}
        self.store = SessionStore(backends, yielding)
        self._processors = {p.name: p for p in ordinary(processors.values())}
        self._express: dict[str, list[Processor]] = {}
        for express, twin in twins(processors.values()).items():
            self._express.setdefault(twin, []).append(processors[express])
        self._leaving: dict[str, threading.Event] = {}

    def check_free(self, name: str) -> None:
        """Refuse a name that is taken.

        Raises:
            ConfigurationError: a model of that name is loaded, or still leaving.
        """
        if name in self.models or name in self._leaving:
            raise ConfigurationError(f"a model named {name!r} is loaded; choose another name")

    def put(self, name: str, model: Model | CutModel, profile: Profile) -> LoadedModel:
        """Compile a model where its profile has entries; it takes requests after `open`.

        Raises:
            ConfigurationError: a model of that name is loaded, or still leaving; the profile has
                no entry for it, or is of a model in more units.
            BackendError: it cannot be loaded on a processor of its profile.
        """
        self.check_free(name)
        cut = model if isinstance(model, CutModel) else CutModel.uncut(model, profile)
        measured = profile.units(name)
        if measured > cut.units:
            raise ConfigurationError(
                f"the profile of model {name!r} is of {measured} units, but the model is in "
                f"{cut.units}; load the model as it was cut, or measure it whole"
            )
        pieces = {span: piece.model for span, piece in cut.pieces.items()}
        wanted: dict[Span, list[Processor]] = {}
        for key in dict.fromkeys(key._replace(batch=1) for key, _ in profile.restricted([name])):
            if key.processor in self._processors and key.span in pieces:
                express = self._express.get(key.processor, ())
                wanted.setdefault(key.span, []).extend([self._processors[key.processor], *express])
        if not wanted:
            raise ConfigurationError(
                f"the profile has no entry for model {name!r} on any of the processors "
                f"{', '.join(self._processors)}; measure it first"
            )
        left_out = self.store.load(name, pieces, wanted)
        self.span_ios[name] = span_ios_of(cut)
        loaded = {
            (span, processor.name)
            for span, processors in wanted.items()
            for processor in processors
            if processor.name not in left_out
        }
        usable = profile.restricted([name]).where(lambda key: (key.span, key.processor) in loaded)
        return LoadedModel(usable, left_out, self.store.notes(name))

    def open(self, name: str, model: Model) -> None:
        """Let a model that `put` has compiled take requests."""
        self.models[name] = model.input_check

    def placement(self, name: str) -> dict[str, Placement]:
        """Tell by processor where the longest span that it runs of a model really is."""
        longest: dict[str, tuple[int, Placement]] = {}
        for span, processor, session in self.store.items(name):
            length = span.last - span.first
            if processor not in longest or length > longest[processor][0]:
                longest[processor] = (length, session.placement())
        return {processor: placement for processor, (_, placement) in longest.items()}

    def withdraw(self, name: str) -> threading.Event:
        """Let a model take no more requests; return what is set once none of it is left."""
        gone = self._leaving[name] = threading.Event()
        del self.models[name]
        return gone

    def note_gone(self, name: str) -> None:
        """Note that no request of a model that was withdrawn is left."""
        self._leaving[name].set()

    def release_all(self) -> None:
        """Let nobody wait any longer for a model's last request."""
        for gone in list(self._leaving.values()):
            gone.set()

    def remove(self, name: str, *, close: bool) -> None:
        """Forget a model that was withdrawn; close its sessions unless something runs on them."""
        self.store.unload(name, close=close)
        self.span_ios.pop(name, None)
        del self._leaving[name]
