"""Model loader: loads and unloads the models of a plan while others run. One thread at a time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from coinfer.core.events import MemoryGiven, ModelUnloaded
from coinfer.core.place import Loadable
from coinfer.errors import (
    BackendError,
    CoinferError,
    ConfigurationError,
    ModelError,
    UnknownNameError,
)
from coinfer.graph.cut_model import CutModel
from coinfer.graph.fusing.member import members_of
from coinfer.machine.processor import ordinary
from coinfer.machine.profile import Profile
from coinfer.machine.span import Span
from coinfer.model import Model
from coinfer.opening import fused_loaded, model_loaded
from coinfer.plan.choice import Choice
from coinfer.plan.plan import Plan
from coinfer.plan.variant import Variant
from coinfer.plan.work import SizeClasses
from coinfer.runtime.event_loop import EventLoop
from coinfer.runtime.model_store import LoadedModel, ModelStore
from coinfer.runtime.warm_up import warm_up

__all__ = ["ModelLoader"]

_log = logging.getLogger(__name__)

_POLL_S = 0.2
_GLANCE_S = 0.005


class ModelLoader:
    """Puts models into the store and tells the core of them, and takes them out again.

    Args:
        event_loop: Tells the core, and starts the workers.
        model_store: Where the models are.
        classes: By model, which class of sizes a request is of; kept here.

    Attributes:
        places: Given a plan and one of its models, returns what of that can be evicted, by variant,
            though the plan has no memory; None: nothing.
        moving: Models of which a move has begun and is not finished.
    """

    def __init__(
        self, event_loop: EventLoop, model_store: ModelStore, classes: dict[str, SizeClasses]
    ) -> None:
        self._event_loop = event_loop
        self._model_store = model_store
        self._classes = classes
        self.places: Callable[[Plan, str], Mapping[str, tuple[Loadable, ...]]] | None = None
        self.moving: set[str] = set()

    def load(
        self,
        name: str,
        models: Mapping[str, Model | CutModel],
        plan: Plan,
        profile: Profile,
        *,
        later: bool = False,
    ) -> Plan:
        """Load a model with its variants as a plan says; returns when it can be asked.

        Args:
            name: Its name.
            models: The model and its variants by name.
            plan: What is loaded where.
            profile: The times of that.
            later: Whether the core says what of it is loaded, and when, because memory has not room
                for everything.

        Returns:
            The plan, without those processors that could not take the model or a variant.

        Raises:
            ConfigurationError: the name is taken, or nothing of it is to be loaded.
            BackendError: it cannot be loaded on a processor of the plan.
        """
        store, keep = self._model_store, bool(plan.memory)
        store.check_free(name)
        usable, is_whole = Profile(), True
        try:
            for each in plan.serving(name) or [name]:
                loaded = store.put(each, models[each], profile, of=name, keep=keep, later=later)
                usable = usable.merged(loaded.profile)
                is_whole = is_whole and not loaded.left_out
                self._note(each, loaded)
        except BaseException:
            store.remove(name, close=True)
            raise
        self._open(name, models[name], plan, usable, are_loaded=not later)
        return plan if is_whole else plan.loading(usable, [name])

    def _note(self, name: str, loaded: LoadedModel) -> None:
        """Say what came of loading a model or a variant."""
        warnings = self._event_loop.warnings
        for processor, why in loaded.left_out.items():
            warnings.append(f"{name} does not run on {processor}: {why}")
        warnings += [f"{name}: {note}" for note in loaded.notes]
        _log.info("model %r loaded on %s", name, ", ".join(loaded.profile.processors()))

    def _open(
        self,
        name: str,
        model: Model | CutModel,
        plan: Plan,
        profile: Profile,
        *,
        are_loaded: bool,
    ) -> None:
        """Let a model take requests that was put into the store."""
        event_loop = self._event_loop
        work = plan.models[name].work
        if work is not None:
            self._classes[name] = SizeClasses(work)
        for processor in profile.processors():
            event_loop.start(processor)
        if name in plan.cheaper:
            event_loop.follow_variants(plan.variant_errors)
        event_loop.tell(model_loaded(plan, name, profile, are_loaded=are_loaded))
        if self.places is not None:  # before anything runs: others may be of the same content
            event_loop.tell(MemoryGiven({}, places=self.places(plan, name)))
        self._model_store.open(name, _whole(model))

    def extend(
        self,
        name: str,
        plan: Plan,
        processors: Sequence[str],
        check: Callable[[Collection[str]], None],
        *why: Choice,
    ) -> Plan:
        """Load a whole model on more processors; nothing runs there before `finish_moves`.

        Args:
            name: Its name.
            plan: What is loaded now.
            processors: Where it shall be.
            check: Called before each session and after the last, with those processors where the
                model can be then; raises what ends it.
            why: For readers of the plan.

        Returns:
            The plan once the move is finished.

        Raises:
            UnknownNameError: no such processor.
            ConfigurationError: it cannot be moved there.
            BackendError: none of those where it is not loaded can take it.
        """
        store, event_loop = self._model_store, self._event_loop
        piece, original = self._movable(name, plan, processors)
        new = [each for each in processors if each not in original.spans]
        left_out = dict[str, str]()
        self.moving.add(name)
        try:
            for each in new:
                check([at for at in processors if at not in left_out])
                try:
                    store.extend(name, piece, each)
                except BackendError as error:
                    left_out[each] = str(error)
                else:
                    event_loop.start(each)
            if new and left_out.keys() >= {*new}:
                raise BackendError(f"model {name!r} stays where it is: {left_out[new[0]]}")
            spans = {each: (Span(),) for each in processors if each not in left_out}
            check([*spans])
            changed = plan.with_variant(name, replace(original, spans=spans), *why)
        except BaseException:  # the core knows nothing of it, and nothing runs there yet
            store.shrink(name, store.processors(name) - original.spans.keys(), close=True)
            self.moving.discard(name)
            raise
        for each, reason in left_out.items():
            event_loop.warnings.append(f"{name} does not run on {each}: {reason}")
        return changed

    def finish_moves(self, plan: Plan) -> None:
        """Let models run where a plan says, and free what else there is once nothing runs on it.

        Again is fine: whatever ended a move early, what the core may use is there until then.
        """
        store, event_loop = self._model_store, self._event_loop
        for name in sorted((self.moving & plan.models.keys()).difference(store.leaving)):
            event_loop.tell(model_loaded(plan, name, plan.profile))
            spans = plan.models[name].original.spans
            gone = store.processors(name) - spans.keys()
            if not self._is_unused(name, gone):
                return  # the engine ends: that frees all
            store.shrink(name, gone, close=not event_loop.worker_pool.has_retired)
            self.moving.discard(name)
            _log.info("model %r moved to %s", name, ", ".join(spans))

    def _movable(self, name: str, plan: Plan, processors: Sequence[str]) -> tuple[Model, Variant]:
        """Return what a model is loaded of, and how it is planned."""
        original = plan.models[name].original
        known = [p.name for p in ordinary(plan.processors)]
        timed = plan.measured.spans_by_processor(name)
        for each in processors:
            if each not in known:
                raise UnknownNameError.of("processor", each, known)
            if Span() not in timed.get(each, ()):
                raise ConfigurationError(
                    f"model {name!r} cannot be moved to {each}: the plan has no time of it there"
                )
        piece = self._model_store.source(name)
        if not processors or original.n_units > 1 or piece is None:
            reason = (
                "no processor is named"
                if not processors
                else ("it is cut" if original.n_units > 1 else "its weights are not in a file")
            )
            raise ConfigurationError(f"model {name!r} cannot be moved: {reason}")
        return piece, original

    def _is_unused(self, name: str, processors: Collection[str]) -> bool:
        """Wait until nothing of a model runs on processors where nothing of it starts any more.

        Returns:
            Whether that is so; else the engine has ended.
        """
        event_loop = self._event_loop
        while event_loop.runs(name, processors):
            if event_loop.crashed is not None or event_loop.is_stopped:
                return False
            time.sleep(_GLANCE_S)
        return True

    def load_fused(
        self,
        name: str,
        models: Mapping[str, Model | CutModel],
        plan: Plan,
        profile: Profile,
        *,
        later: bool = False,
    ) -> Plan:
        """Load a fused variant of models that are loaded; where that fails, these run alone.

        Arguments are those of `load`.

        Returns:
            The plan, without the variant if it could not be loaded.
        """
        planned, event_loop = plan.fused[name], self._event_loop
        members = {each: _whole(models[each]) for each in planned.models}
        model = _whole(models[name]).renamed(name)
        try:
            parts = members_of(model, members)
            keep = bool(plan.memory)
            loaded = self._model_store.put_fused(
                name, model, parts, profile, keep=keep, later=later
            )
        except (BackendError, ModelError) as error:
            event_loop.warnings.append(f"{', '.join(planned.models)} are not fused: {error}")
            return plan.without_fused(name)
        for processor, why in loaded.left_out.items():
            event_loop.warnings.append(f"{name} does not run on {processor}: {why}")
        # The first run takes longer than others, and would keep several models waiting.
        with suppress(CoinferError):  # of sizes that are not known, or strings
            warm_up(self._model_store, name, model.sample_inputs(), planned.batch, lambda: None)
        for processor in loaded.profile.processors():
            event_loop.start(processor)
        event_loop.tell(fused_loaded(plan, name, loaded.profile, are_loaded=not later))
        _log.info("%s are fused on %s", planned.models, loaded.profile.processors())
        return plan

    def withdraw(self, name: str) -> None:
        """Let a model take no more requests; returns when none of it is left. Again is fine."""
        event_loop = self._event_loop
        gone = self._model_store.withdraw(name)
        event_loop.post(ModelUnloaded(name))
        event_loop.post(partial(event_loop.note_if_gone, name))
        while not gone.wait(_POLL_S) and event_loop.crashed is None:
            if event_loop.is_stopped:
                break

    def remove(self, name: str) -> None:
        """Free a model that was withdrawn."""
        self.moving.discard(name)
        self._classes.pop(name, None)
        self._event_loop.counts.pop(name, None)
        # An abandoned execution may still use the sessions. They are not closed then; they are
        # freed when its worker returns.
        has_retired = self._event_loop.worker_pool.has_retired
        self._model_store.remove(name, close=not has_retired)
        self._model_store.leave_fused(name, close=not has_retired)
        _log.info("model %r unloaded", name)


def _whole(model: Model | CutModel) -> Model:
    return model if isinstance(model, Model) else model.model
