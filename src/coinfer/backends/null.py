"""The backend that computes nothing: it waits for the profiled time and returns zeros.

It is for tests, benchmarks of overhead, and trying policies without a network. It can be told to
fail or to hang. Knows no inference library.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field

import numpy as np

from coinfer.backends.base import Device, Placement, Tensor, Tensors
from coinfer.errors import BackendError, ConfigurationError, ExecutionError
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.model import Model

__all__ = ["Faults", "NullBackend", "NullSession", "ServiceTime"]

ServiceTime = Callable[[str, str, int], float]
"""Seconds that a run takes, by model, processor and batch size."""


@dataclass(slots=True, kw_only=True)
class _Rule:
    """What goes wrong, where, and how often still."""

    model: str | None
    processor: str | None
    times: int
    gate: threading.Event | None = None

    def fits(self, model: str, processor: str) -> bool:
        return self.model in (None, model) and self.processor in (None, processor)


@dataclass(slots=True)
class Faults:
    """Tells a `NullBackend` what shall go wrong. Thread-safe; rules apply in the order given.

    >>> faults = Faults()
    >>> faults.fail(model="a", times=2)
    >>> faults.armed
    True
    """

    armed: bool = False
    _runs: list[_Rule] = field(default_factory=list)
    _loads: list[_Rule] = field(default_factory=list)
    _hanging: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def fail(
        self, *, model: str | None = None, processor: str | None = None, times: int = 1
    ) -> None:
        """Make the next `times` runs raise; None fits every model or processor."""
        self._add(self._runs, _Rule(model=model, processor=processor, times=times))

    def fail_load(
        self, *, model: str | None = None, processor: str | None = None, times: int = 1
    ) -> None:
        """Make the next `times` loads raise."""
        self._add(self._loads, _Rule(model=model, processor=processor, times=times))

    def hang(
        self, *, model: str | None = None, processor: str | None = None, times: int = 1
    ) -> None:
        """Make the next `times` runs block until `release`; they then end as usual."""
        gate = threading.Event()
        self._add(self._runs, _Rule(model=model, processor=processor, times=times, gate=gate))

    def release(self) -> None:
        """Let every hanging run go on and forget all rules."""
        with self._changed:
            for rule in self._runs:
                if rule.gate is not None:
                    rule.gate.set()
            self._runs.clear()
            self._loads.clear()
            self.armed = False

    def wait_until_hanging(self, count: int = 1, *, timeout_s: float = 10.0) -> bool:
        """Wait until `count` runs hang; False if they did not in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._hanging >= count, timeout_s)

    def apply_to_run(self, model: str, processor: str) -> None:
        """Do what the rules say for this run.

        Raises:
            ExecutionError: a rule of `fail` fits.
        """
        rule = self._use(self._runs, model, processor)
        if rule is None:
            return
        if rule.gate is None:
            what = f"model {model!r} on processor {processor!r}"
            raise ExecutionError.of(what, "fails because Faults.fail says so")
        with self._changed:
            self._hanging += 1
            self._changed.notify_all()
        rule.gate.wait()
        with self._changed:
            self._hanging -= 1

    def apply_to_load(self, model: str, processor: str) -> None:
        """Do what the rules say for this load.

        Raises:
            BackendError: a rule of `fail_load` fits.
        """
        if self._use(self._loads, model, processor) is not None:
            raise BackendError(
                f"model {model!r} on processor {processor!r}: cannot be loaded because "
                f"Faults.fail_load says so"
            )

    def _add(self, rules: list[_Rule], rule: _Rule) -> None:
        with self._changed:
            rules.append(rule)
            self.armed = True

    def _use(self, rules: list[_Rule], model: str, processor: str) -> _Rule | None:
        with self._changed:
            for rule in rules:
                if rule.times > 0 and rule.fits(model, processor):
                    # A used-up rule stays in the list: `release` must still find its gate.
                    rule.times -= 1
                    return rule
        return None


class NullBackend:
    """Takes the time it is told and returns zeros of the right shape.

    Args:
        service_s: Seconds of a run: a number, a function of (model, processor, batch), or a
            profile, whose mean is taken. Zero makes no call to sleep at all.
        faults: What shall go wrong.

    >>> NullBackend(service_s=0.01).devices()[0].name
    'NULL'
    """

    name = "null"
    computes = False

    def __init__(
        self,
        service_s: float | ServiceTime | Profile = 0.0,
        *,
        faults: Faults | None = None,
    ) -> None:
        self.faults = faults if faults is not None else Faults()
        self.service = _service_time(service_s)

    def versions(self) -> Mapping[str, str]:
        """Return nothing: no library decides its speed."""
        return {}

    def devices(self) -> tuple[Device, ...]:
        """Return the one device that computes nothing in fp32."""
        return (
            Device(name="NULL", kind="cpu", precisions=("fp32",), description="computes nothing"),
        )

    def sharing_key(self, processor: Processor) -> Hashable:
        """Each processor has its own session, which knows its name and so its time."""
        return (self.name, processor.name)

    def supported(self, model: Model, processor: Processor) -> frozenset[str]:  # noqa: ARG002
        """Return everything: what computes nothing can compute nothing of anything."""
        from coinfer.graph.operators import nodes_by_key

        return frozenset(nodes_by_key(model.graph))

    def load(self, model: Model, processor: Processor) -> NullSession:
        """Prepare zeros.

        Raises:
            BackendError: `Faults.fail_load` says so.
        """
        self.faults.apply_to_load(model.name, processor.name)
        return NullSession(self, model, processor)


class NullSession:
    """A model that takes time; made by `NullBackend.load`.

    Its outputs are read-only: equal shapes share one array, so that a run costs about a
    microsecond.
    """

    def __init__(self, backend: NullBackend, model: Model, processor: Processor) -> None:
        self._model = model
        self._processor = processor
        self._service = backend.service
        self._faults = backend.faults
        self._places = _open_axes(model)
        self._read_sizes = tuple(self._places.values())
        self._batch_at = self._places.get(model.batch_symbol or "")
        self._zeros: dict[tuple[int, ...], dict[str, Tensor]] = {}
        self._closed = False

    def run(self, inputs: Tensors) -> dict[str, Tensor]:
        """Wait as long as the profile says and return zeros.

        Raises:
            ExecutionError: `Faults.fail` says so, or the session is closed.
        """
        if self._closed:
            what = f"model {self._model.name!r} on processor {self._processor.name!r}"
            raise ExecutionError.of(what, "the session is closed; load the model again")
        if self._faults.armed:
            self._faults.apply_to_run(self._model.name, self._processor.name)
        if self._service is not None:
            at = self._batch_at
            batch = 1 if at is None else inputs[at[0]].shape[at[1]]
            seconds = self._service(self._model.name, self._processor.name, batch)
            if seconds > 0:
                time.sleep(seconds)
        sizes = tuple([inputs[name].shape[axis] for name, axis in self._read_sizes])
        try:
            return self._zeros[sizes].copy()
        except KeyError:
            return self._zeros.setdefault(sizes, self._make_zeros(sizes)).copy()

    def placement(self) -> Placement:
        """Return all operators on the null device."""
        return Placement(
            operators={"NULL": self._model.graph.graph.num_nodes()},
            precision=self._processor.precision,
            threads=self._processor.threads,
        )

    def close(self) -> None:
        """Forget the zeros."""
        self._closed = True
        self._zeros.clear()

    def _make_zeros(self, sizes: tuple[int, ...]) -> dict[str, Tensor]:
        by_symbol = dict(zip(self._places, sizes, strict=True))
        made: dict[str, Tensor] = {}
        for spec in self._model.outputs:
            # An open size that no input determines is 1.
            shape = [d if isinstance(d, int) else by_symbol.get(d or "", 1) for d in spec.shape]
            made[spec.name] = np.zeros(shape, spec.dtype)
            made[spec.name].flags.writeable = False
        return made


def _open_axes(model: Model) -> dict[str, tuple[str, int]]:
    """Per symbol of the inputs one place that tells its size: (input, axis)."""
    places: dict[str, tuple[str, int]] = {}
    for spec in model.inputs:
        for axis, dim in enumerate(spec.shape):
            if not isinstance(dim, int):
                places.setdefault(dim or f"{spec.name}:{axis}", (spec.name, axis))
    return places


def _service_time(service_s: float | ServiceTime | Profile) -> ServiceTime | None:
    """A function of (model, processor, batch), or None for no time at all."""
    if isinstance(service_s, Profile):
        return _from_profile(service_s)
    if callable(service_s):
        return service_s
    seconds = float(service_s)
    return (lambda _model, _processor, _batch: seconds) if seconds else None


def _from_profile(profile: Profile) -> ServiceTime:
    def service(model: str, processor: str, batch: int) -> float:
        seconds = profile.expected_s(model, processor, batch=batch)
        if seconds is None:
            raise ConfigurationError(
                f"the profile has no entry for model {model!r} on processor {processor!r}; "
                f"profile it first"
            )
        return seconds

    return service
