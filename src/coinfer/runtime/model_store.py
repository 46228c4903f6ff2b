"""Model store: the loaded models of an engine and their sessions. Knows no request and no thread.

One thread at a time may load or unload a model; any thread may read meanwhile. With a memory
budget the loader's thread loads and evicts places of loaded models beside that.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

from coinfer.backends import heap
from coinfer.backends.artefact_making import prepare, read_ahead
from coinfer.backends.base import (
    Backend,
    DeviceUse,
    Placement,
    Session,
    caller_cores,
    device_bytes,
    device_use,
    files_of,
    note_of,
    reading_once,
)
from coinfer.backends.loading import keep_ready, load
from coinfer.backends.mapped_file import forget_pages, forget_unmapped
from coinfer.backends.patience import HangError
from coinfer.errors import BackendError, CoinferError, ConfigurationError
from coinfer.graph.cut_model import CutModel
from coinfer.graph.fusing.member import Member
from coinfer.machine.memories import HOST, lowers_threads, memory_of
from coinfer.machine.processor import Processor, ordinary, overlaid_units, twins
from coinfer.machine.profile import Profile
from coinfer.machine.span import Span, completes
from coinfer.model import Model
from coinfer.model.inputs import InputCheck
from coinfer.model.paging import in_file, paged
from coinfer.runtime.arguments import said
from coinfer.runtime.latch import Latch
from coinfer.runtime.span_io import SpanIO, span_ios_of
from coinfer.runtime.yielding import Yielding

__all__ = ["LoadedModel", "ModelStore"]

_log = logging.getLogger(__name__)


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
    """Loaded models by name, with a session per span and processor; what can share one does.

    So do models of the same content under several names; their sessions are closed with the last.

    Attributes:
        models: Those that take requests, each as what checks the inputs of one: the graphs and
            the weights are in the sessions, and need not be held a second time.
        span_ios: Per model, its spans as a request goes through them.
        fused: By fused variant, those of its members that are loaded.
        yielding: The threads that give way once an express processor is used.
        changing: Held while sessions are made or closed.
    """

    def __init__(
        self, processors: Mapping[str, Processor], backends: Mapping[str, Backend]
    ) -> None:
        self.models: dict[str, InputCheck] = {}
        self.span_ios: dict[str, Mapping[Span, SpanIO]] = {}
        self.fused: dict[str, tuple[str, ...]] = {}
        overlaid = overlaid_units(p for p in processors.values() if lowers_threads(p))
        self._overlaid = {p.name for p in processors.values() if not p.units.isdisjoint(overlaid)}
        self.yielding = Yielding()
        self._backends = backends
        self._shared: dict[Hashable, Session] = {}
        self._sessions: dict[tuple[str, Span, str], Session] = {}
        self._processors = {p.name: p for p in ordinary(processors.values())}
        self._all = dict(processors)
        self._express: dict[str, list[Processor]] = {}
        self._twins = twins(processors.values())
        for express, twin in self._twins.items():
            self._express.setdefault(twin, []).append(processors[express])
        self._leaving: dict[str, Latch] = {}
        self._variants: dict[str, list[str]] = {}
        self.changing = threading.RLock()
        self._kept: dict[tuple[str, Span, str], tuple[Model, Hashable]] = {}
        self._hanging: list[Session] = []

    def check_free(self, name: str) -> None:
        """Refuse a name that is taken.

        Raises:
            ConfigurationError: a model of that name is loaded, or still leaving.
        """
        if name in self.span_ios or name in self._leaving:
            raise ConfigurationError(f"a model named {name!r} is loaded; choose another name")

    def put(
        self,
        name: str,
        model: Model | CutModel,
        profile: Profile,
        *,
        of: str = "",
        keep: bool = False,
        later: bool = False,
    ) -> LoadedModel:
        """Compile a model where its profile has entries; it takes requests after `open`.

        Args:
            name: What it is called.
            model: The model.
            profile: Its times, where it shall run.
            of: The model of which it is a variant, with which it is removed; by default it is none.
            keep: Whether it may be evicted and loaded again.
            later: Whether only to prepare it: `load` makes the sessions.

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
        pairs: list[tuple[Span, Processor]] = []
        for key in dict.fromkeys(key._replace(batch=1) for key, _ in profile.restricted([name])):
            if key.processor in self._processors and key.span in pieces:
                pairs += [(key.span, p) for p in self._with_express(key.processor)]
        if not pairs:
            raise ConfigurationError(
                f"the profile has no entry for model {name!r} on any of the processors "
                f"{', '.join(self._processors)}; measure it first"
            )
        if of and of != name:
            self._variants.setdefault(of, []).append(name)
        self.span_ios[name] = span_ios_of(cut)
        with self.changing:
            if keep:
                pieces = self._keep(name, pieces, pairs)
            left_out = {} if later else self._load(name, pieces, pairs)
            if not keep:
                self._keep_files(name, pieces)
            for place, (_, shared) in self._kept.items():
                if later and shared in self._shared:  # another model of the same content is loaded
                    self._sessions[place] = self._shared[shared]
        loaded = self.items(name)
        at = {(span, processor) for span, processor, _ in loaded}
        if later:
            at = {(span, processor.name) for span, processor in pairs}
        usable = profile.restricted([name]).where(lambda key: (key.span, key.processor) in at)
        notes = dict.fromkeys(note for *_, session in loaded if (note := note_of(session)))
        return LoadedModel(usable, left_out, tuple(notes))

    def put_fused(
        self,
        name: str,
        model: Model,
        members: Sequence[Member],
        profile: Profile,
        *,
        keep: bool = False,
        later: bool = False,
    ) -> LoadedModel:
        """Compile a fused variant where its profile has entries; `keep` and `later` as for `put`.

        Raises:
            ConfigurationError: something of that name is loaded, or the profile has no entry.
            BackendError: it cannot be loaded on a processor of its profile.
        """
        loaded = self.put(name, model, profile, keep=keep, later=later)
        whole = self.span_ios[name][Span()]
        slots = {member.name: member for member in members}
        self.span_ios[name] = {Span(): whole._replace(slots=slots)}
        self.fused[name] = tuple(slots)
        return loaded

    def leave_fused(self, model: str, *, close: bool) -> None:
        """Forget the fused variants that answer for one model only, now that another is gone.

        The slot of one that is gone stays empty: to fill it, plan anew. Nothing runs what is
        forgotten: the core took note before the model was gone.
        """
        for name, members in list(self.fused.items()):
            self.fused[name] = tuple(each for each in members if each != model)
            if len(self.fused[name]) < 2:
                del self.fused[name]
                self.remove(name, close=close)

    def open(self, name: str, model: Model) -> None:
        """Let a model that `put` has compiled take requests."""
        self.models[name] = model.input_check

    def load(
        self, name: str, span: Span, processors: Sequence[str], *, forget: bool = False
    ) -> None:
        """Make what one place of a model needs, if it was put to be loaded later or was evicted.

        Artefacts are read first: no run waits for the disk, and what loading costs is known. With
        `forget` the page cache does not keep what of them was needed for loading only.

        Raises:
            BackendError: a backend cannot make it.
        """
        for processor in processors:
            kept = self._kept.get((name, span, processor))
            if kept is not None and kept[1] not in self._shared:
                self._read_ahead(kept[0], self._all[processor])
        with self.changing:
            made = set()
            try:
                for processor in processors:
                    kept = self._kept.get((name, span, processor))
                    if kept is not None:  # else the model left meanwhile
                        self._load_one(name, span, kept[0], self._all[processor])
                        made.add(kept[1])
            except BaseException:
                # Nothing runs on the others before all are there, and nobody would evict them.
                self.evict(name, span, processors, close=True)
                raise
            for place, (_, key) in self._kept.items():
                if key in made:  # it may be that of another model of the same content
                    self._sessions[place] = self._shared[key]
            files = [path for key in made for path in files_of(self._shared[key])]
        if forget:
            forget_unmapped(files)

    def evict(
        self,
        name: str,
        span: Span,
        processors: Sequence[str],
        *,
        close: bool,
        forget: bool = False,
    ) -> None:
        """Forget the sessions of one place, for all models that have it; close them if told to.

        With `forget` the page cache does not keep the files that only they have mapped.
        """
        with self.changing:
            found = [self._sessions.get((name, span, processor)) for processor in processors]
            gone = {id(session) for session in found if session is not None}
            self._sessions = {k: s for k, s in self._sessions.items() if id(s) not in gone}
            self._close_unused(close=close, forget=forget)

    def source(self, name: str) -> Model | None:
        """Return what further sessions of a whole model are made of; None: that is not kept."""
        for (model, span, _), (piece, _) in list(self._kept.items()):
            if model == name and span == Span() and piece.content.is_there:
                return piece
        return None

    def extend(self, name: str, piece: Model, processor: str) -> None:
        """Make the sessions of a whole model on one more processor, and its express ones.

        Raises:
            BackendError: a backend cannot make them; then nothing of it is left there.
        """
        with self.changing:
            for each in self._with_express(processor):
                try:
                    self._load_one(name, Span(), piece, each)
                except BaseException:
                    self.shrink(name, [processor], close=True)
                    raise
                self._kept[name, Span(), each.name] = piece, self._key(piece, each)

    def shrink(self, name: str, processors: Iterable[str], *, close: bool) -> None:
        """Forget a model on processors on which nothing of it runs; close what nobody else uses."""
        gone = {each.name for processor in processors for each in self._with_express(processor)}
        with self.changing:
            self._sessions = {
                k: s for k, s in self._sessions.items() if k[0] != name or k[2] not in gone
            }
            self._kept = {k: v for k, v in self._kept.items() if k[0] != name or k[2] not in gone}
            self._close_unused(close=close)

    def processors(self, name: str) -> set[str]:
        """Return the ordinary processors on which anything of a model is loaded, or kept for it."""
        places = (*list(self._sessions), *list(self._kept))
        return {at for model, _, at in places if model == name and at in self._processors}

    def _with_express(self, processor: str) -> tuple[Processor, ...]:
        return (self._processors[processor], *self._express.get(processor, ()))

    def can_load_again(self, name: str) -> bool:
        """Tell whether all sessions of a model may be closed, since they can be made again.

        Some or all may be closed already.
        """
        kept = {key: piece for key, (piece, _) in list(self._kept.items()) if key[0] == name}
        is_all = kept.keys() >= {key for key in list(self._sessions) if key[0] == name}
        return bool(kept) and is_all and all(piece.content.is_there for piece in kept.values())

    def get(self, name: str, span: Span, processor: str) -> Session:
        """Return the session of a span of a model on a processor."""
        return self._sessions[name, span, processor]

    def items(self, name: str) -> list[tuple[Span, str, Session]]:
        """Return (span, processor, session) of a model."""
        # A list first, in one step: another thread may be loading.
        return [(i, p, s) for (m, i, p), s in list(self._sessions.items()) if m == name]

    def caller_cores(self, processor: str) -> tuple[int, ...]:
        """Return the cores of the thread that runs a processor's sessions; none: any."""
        found = self._all[processor]
        return caller_cores(self._backends[found.backend], found)

    def device_uses(self) -> dict[str, DeviceUse]:
        """Return what is taken of memories that are not the host's, where that is known.

        One library says it. What sessions of others hold there is this process's as well.
        """
        found: dict[str, DeviceUse] = {}
        asked: dict[str, str] = {}
        for processor in self._all.values():
            name = memory_of(processor)
            if name != HOST and name not in found:
                use = device_use(self._backends[processor.backend], processor.device)
                if use is not None:
                    found[name], asked[name] = use, processor.backend
        if not found:
            return found
        others: dict[int, tuple[str, int]] = {}
        for (_, _, at), session in list(self._sessions.items()):
            name = memory_of(self._all[at])
            if name in found and asked[name] != self._all[at].backend:
                others[id(session)] = name, device_bytes(session)
        for name, size in others.values():
            found[name] = found[name].with_more(size)
        return found

    def variants(self, name: str) -> list[str]:
        """Return the names of what is loaded of a model: itself and its variants."""
        return [name, *self._variants.get(name, ())]

    def placement(self, name: str) -> dict[str, Placement]:
        """Tell by processor where the longest span that it runs of a model really is."""
        longest: dict[str, Session] = {}
        found = [item for each in self.variants(name) for item in self.items(each)]
        by_length = sorted(found, key=lambda item: item[0].first - item[0].last)
        for _, processor, session in by_length:
            longest.setdefault(processor, session)
        return {processor: session.placement() for processor, session in longest.items()}

    def give_up(self, session: Session) -> None:
        """Never close a session: something hangs in it. It stays as long as the store."""
        self._hanging.append(session)

    @property
    def leaving(self) -> list[str]:
        """Models that were withdrawn and not yet removed."""
        return list(self._leaving)

    def withdraw(self, name: str) -> Latch:
        """Let a model take no more requests; return what is set once none of it is left."""
        gone = self._leaving.setdefault(name, Latch())
        self.models.pop(name, None)
        return gone

    def note_gone(self, name: str) -> None:
        """Note that no request of a model that was withdrawn is left."""
        gone = self._leaving.get(name)
        if gone is not None:
            gone.set()

    def release_all(self) -> None:
        """Let nobody wait any longer for a model's last request."""
        for gone in list(self._leaving.values()):
            gone.set()

    def remove(self, name: str, *, close: bool) -> None:
        """Forget a model that was withdrawn; close its sessions unless something runs on them."""
        variants = self._variants.pop(name, [])
        self._unload(name, *variants, close=close)
        for each in (name, *variants):
            self.span_ios.pop(each, None)
        self._leaving.pop(name, None)

    def close(self) -> None:
        """Close all sessions."""
        self._unload(*{name for name, _, _ in (*self._sessions, *self._kept)})

    def _load(
        self, name: str, pieces: Mapping[Span, Model], pairs: Sequence[tuple[Span, Processor]]
    ) -> dict[str, str]:
        """Create what is missing of a model's sessions; on failure nothing of it is left.

        A processor with several threads is only an alternative to those with one, and the pool
        threads of a process are limited. So if it cannot take a span, it is left out, and the
        others must be able to run the whole model. So is one whose library hangs. If that is an
        express one, the one below goes with it: what runs there is taken to run on top as well.

        Args:
            name: What the model is called.
            pieces: The model of each span; a model that is not cut is its one span.
            pairs: Which processors shall run which span.

        Returns:
            Why a processor was left out, by its name; usually empty.

        Raises:
            BackendError: a backend cannot compile a span for a processor.
        """
        left_out: dict[str, str] = {}
        units = 1 + max(span.last for span, _ in pairs)
        try:
            with reading_once(self._backends.values()):
                for span, processor in sorted(pairs, key=lambda pair: (pair[1].threads, pair[0])):
                    if processor.name in left_out:
                        continue
                    try:
                        self._load_one(name, span, pieces[span], processor)
                    except BackendError as error:
                        out = {processor.name, self._twins.get(processor.name, processor.name)}
                        others = [s for s, p in pairs if p.name not in {*left_out, *out}]
                        is_spare = processor.threads > 1 or isinstance(error, HangError)
                        if not (is_spare and completes(others, units)):
                            raise
                        for each in out:
                            left_out[each] = str(error)
                            self._forget(name, each)
        except BaseException:
            self._unload(name)
            raise
        return left_out

    def _unload(self, *names: str, close: bool = True) -> None:
        """Forget the sessions of models, and close them unless something may still run on them.

        The memory of those that are closed goes back to the system.
        """
        with self.changing:
            self._sessions = {k: s for k, s in self._sessions.items() if k[0] not in names}
            self._kept = {k: kept for k, kept in self._kept.items() if k[0] not in names}
            self._close_unused(close=close)

    def _close_unused(self, *, close: bool, forget: bool = False) -> None:
        found = self._unused()
        if close and found:
            files = [path for session in found for path in files_of(session)]
            while found:
                _close(found.pop())
            heap.trim()
            if forget:
                forget_pages(files)

    def _keep(
        self, name: str, pieces: Mapping[Span, Model], pairs: Sequence[tuple[Span, Processor]]
    ) -> dict[Span, Model]:
        """Keep what sessions are made of, and see that there are artefacts where they are worth it.

        Returns:
            The models of the spans, with their weights not in memory but in files.
        """
        kept = {}
        for span, processor in sorted(pairs, key=lambda pair: (pair[0], pair[1].name)):
            backend = self._backends[processor.backend]
            prepare(backend, pieces[span], processor)
            if span not in kept:
                kept[span] = paged(pieces[span])
            self._make_ready(name, kept[span], processor)
            self._kept[name, span, processor.name] = kept[span], self._key(kept[span], processor)
        return kept

    def _make_ready(self, name: str, piece: Model, processor: Processor) -> None:
        """Let weights wait where they are got fast; where that fails, loading says why."""
        try:
            keep_ready(self._backends[processor.backend], piece, processor)
        except Exception as error:  # noqa: BLE001 - a backend is foreign code
            _log.info("model %r on %s is not kept ready: %s", name, processor.name, error)

    def _read_ahead(self, piece: Model, processor: Processor) -> None:
        """Have what a session is made of in memory; where that fails, loading says why."""
        try:
            read_ahead(self._backends[processor.backend], piece, processor)
        except Exception as error:  # noqa: BLE001 - a backend is foreign code
            _log.info("%r on %s is not read ahead: %s", piece.name, processor.name, error)

    def _keep_files(self, name: str, pieces: Mapping[Span, Model]) -> None:
        """Keep whatever a model's sessions can be made of again without holding its weights."""
        found = {span: in_file(piece) for span, piece in pieces.items()}
        alike = {key: piece for piece, key in self._kept.values()}
        for (model, span, processor), _ in list(self._sessions.items()):
            if model != name:
                continue
            key = self._key(pieces[span], self._all[processor])
            piece = found[span] or alike.get(key)
            if piece is not None:
                alike[key] = piece
                self._kept[name, span, processor] = piece, key

    def _key(self, piece: Model, processor: Processor) -> Hashable:
        """Equal for what one session serves."""
        backend = self._backends[processor.backend]
        return (_identity(piece, backend), processor.backend, backend.sharing_key(processor))

    def _load_one(self, name: str, span: Span, piece: Model, processor: Processor) -> None:
        backend, key = self._backends[processor.backend], self._key(piece, processor)
        if key not in self._shared:
            join = self.yielding.join if processor.name in self._overlaid else None
            try:
                prepare(backend, piece, processor)
                self._shared[key] = load(backend, piece, processor, begin=join)
            except CoinferError:
                raise
            except Exception as error:  # a backend is foreign code
                what = f"model {name!r} on processor {processor.name!r}"
                raise BackendError(f"{what}: it cannot be loaded: {said(error)}") from error
        self._sessions[name, span, processor.name] = self._shared[key]

    def _forget(self, name: str, processor: str) -> None:
        """Close a processor's sessions of a model, but for those that others share."""
        kept = {k: s for k, s in self._sessions.items() if (k[0], k[2]) != (name, processor)}
        self._sessions = kept
        for session in self._unused():
            _close(session)

    def _unused(self) -> list[Session]:
        """Forget and return the sessions that no model has any more."""
        used = {id(session) for session in self._sessions.values()}
        unused = [key for key, session in self._shared.items() if id(session) not in used]
        hanging = {id(session) for session in self._hanging}
        sessions = [self._shared.pop(key) for key in unused]
        return [session for session in sessions if id(session) not in hanging]


def _identity(piece: Model, backend: Backend) -> Hashable:
    """Equal for models that one session can serve, whatever they are called.

    A backend without versions may be anything, as in tests: there a name counts.
    """
    name = "" if backend.versions() else piece.name
    return (piece.fingerprint, piece.borders, name)


def _close(session: Session) -> None:
    """Close a session; one that cannot be closed must not keep others from it."""
    try:
        session.close()
    except Exception:  # noqa: BLE001 - foreign code
        _log.exception("a session of type %s could not be closed", type(session).__name__)
