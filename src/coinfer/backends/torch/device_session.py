"""DeviceSession: a program on a device with memory of its own, for one processor."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, MutableMapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np

from coinfer.backends.base import Placement, Tensor, Tensors
from coinfer.backends.device_faults import Fault, LostDevices, reason_of
from coinfer.backends.torch.launcher import Launcher
from coinfer.backends.torch.library import torch
from coinfer.backends.torch.session import host_tensor
from coinfer.backends.torch.stream import Stream
from coinfer.backends.torch.waiting_program import LoadedProgram
from coinfer.backends.values import Value, Values, to_host
from coinfer.errors import BackendError, ExecutionError, first_line
from coinfer.model import Model

__all__ = ["DeviceSession", "DeviceValue"]


class DeviceValue(NamedTuple):
    """A tensor that stays on the device between two parts of a model.

    Attributes:
        tensor: It is complete: nothing that is queued still writes it.
        device: Where it is.
    """

    tensor: Any
    device: Any

    def to_host(self) -> Tensor:
        """Return it as an array."""
        array: Tensor = self.tensor.contiguous().cpu().numpy()
        return array

    def copy(self) -> Self:
        """Return one that shares no memory with it."""
        return self._replace(tensor=_settled(self.tensor.clone()))

    def join(self, others: Sequence[Value]) -> Self | None:
        """Put others behind it along the first axis; None if one is not on the same device."""
        alike = [v.tensor for v in others if isinstance(v, DeviceValue) and v.device == self.device]
        if len(alike) < len(others):
            return None
        return self._replace(tensor=_settled(torch.cat([self.tensor, *alike])))

    def part(self, cuts: Sequence[int]) -> list[Self]:
        """Cut it along the first axis before these positions."""
        parts = torch.tensor_split(self.tensor, list(cuts))
        return [self._replace(tensor=each) for each in parts]


class DeviceSession:
    """A program on a stream of a device; made by `TorchBackend.load`.

    It is a `values.PartSession`: what only other parts of the model read stays on the device.

    Attributes:
        reload_s: Seconds to load it once more while its weights wait on the host; 0: not known.
    """

    def __init__(
        self,
        loaded: LoadedProgram,
        model: Model,
        stream: Stream,
        *,
        what: str,
        device: str,
        precision: str,
        lost: LostDevices,
        choices: MutableMapping[Hashable, bool] | None = None,
        multiprocessors: int = 0,
        siblings: Callable[[], Collection[DeviceSession]] = tuple,
    ) -> None:
        program = loaded.program
        self._loaded: LoadedProgram | None = loaded
        self._inputs = tuple(spec.name for spec in model.inputs)
        self._outputs = tuple(spec.name for spec in model.outputs)
        kept = [at for at, name in enumerate(self._outputs) if name in model.borders]
        launcher = partial(
            Launcher,
            run=program.run,
            stream=stream,
            records=not program.waits,
            upload=loaded.upload,
            choices={} if choices is None else choices,
        )
        self._whole: Launcher | None = launcher()
        self._part: Launcher | None = launcher(keep=kept)
        self.reload_s = 0.0
        self._steps = len(program.steps)
        self._bounds = program.bounds
        self._stream = stream
        self._what = what
        self._device = device
        self._precision = precision
        self._lost = lost
        self._multiprocessors = multiprocessors
        self._siblings = siblings

    @property
    def device_bytes(self) -> int:
        """What its weights, which sessions of other streams share, and its inputs take there."""
        loaded, launchers = self._loaded, (self._whole, self._part)
        weights = 0 if loaded is None else loaded.nbytes
        return weights + sum(each.device_bytes for each in launchers if each is not None)

    def run(self, inputs: Tensors) -> dict[str, Tensor]:
        """Compute all outputs; the arrays belong to the caller.

        Raises:
            ExecutionError: the device failed or is lost, or the session is closed.
        """
        made = self._executed(self._whole, inputs)
        return {name: each.numpy() for name, each in zip(self._outputs, made, strict=True)}

    def run_part(self, inputs: Values) -> dict[str, Value]:
        """Compute all outputs; those at borders stay on the device.

        Raises:
            ExecutionError: the device failed or is lost, or the session is closed.
        """
        part = self._part
        kept = () if part is None else part.keep
        made = enumerate(self._executed(part, inputs))
        values: list[Value] = [
            DeviceValue(each, self._stream.device) if at in kept else each.numpy()
            for at, each in made
        ]
        return dict(zip(self._outputs, values, strict=True))

    def owned(self, inputs: Values) -> dict[str, Value]:
        """Return inputs as they are on the device."""
        device = self._stream.device
        return {
            name: value
            if isinstance(value, DeviceValue) and value.device == device
            else DeviceValue(_settled(host_tensor(to_host({name: value})[name]).to(device)), device)
            for name, value in inputs.items()
        }

    def placement(self) -> Placement:
        """Tell how many functions are called.

        Raises:
            BackendError: the session is closed.
        """
        if self._whole is None:
            raise BackendError(f"{self._what}: the session is closed; load the model again")
        operators = {self._device: max(1, self._steps)}
        return Placement(
            operators=operators,
            precision=self._precision,
            threads=1,
            multiprocessors=self._multiprocessors,
        )

    def forget(self) -> bool:
        """Give buffers and recordings back, unless something runs; they come back when needed."""
        if not self._stream.lock.acquire(blocking=False):
            return False
        try:
            kept = [each for each in (self._whole, self._part) if each is not None]
            held = any(each.device_bytes for each in kept)
            for each in kept:
                each.forget()
            return held
        finally:
            self._stream.lock.release()

    def close(self) -> None:
        """Give memory back; a run in progress ends first."""
        with self._stream.lock:
            self._whole = self._part = self._loaded = None

    def _executed(self, launcher: Launcher | None, inputs: Values) -> list[Any]:
        if launcher is None:
            raise ExecutionError.of(self._what, "the session is closed; load the model again")
        if reason := self._lost.gone(self._device):
            raise ExecutionError.of(self._what, reason)
        resident = []
        given = []
        for at, name in enumerate(self._inputs):
            value = inputs[name]
            if isinstance(value, DeviceValue) and value.device == self._stream.device:
                resident.append(at)
                given.append(value.tensor)
            else:
                array = value if isinstance(value, np.ndarray) else value.to_host()
                self._check_rows(name, array)
                given.append(host_tensor(array))
        try:
            with torch.inference_mode():
                return self._launched(launcher, given, resident)
        except Exception as error:
            # The library raises RuntimeError, ValueError, TypeError and its own kinds.
            fault = self._stream.fault(error)
            reason = reason_of(fault, self._device, first_line(error), self._lost)
            raise ExecutionError.of(self._what, reason) from error

    def _launched(
        self, launcher: Launcher, given: Sequence[Any], resident: Collection[int]
    ) -> list[Any]:
        """Execute; out of memory, let the device's other sessions give theirs back, and retry."""
        try:
            return launcher.execute(given, resident)
        except Exception as error:
            if self._stream.fault(error) is not Fault.MEMORY:
                raise
            others = [each for each in self._siblings() if each is not self]
            if not sum(each.forget() for each in others):
                raise
        self._stream.relieve()
        return launcher.execute(given, resident)

    def _check_rows(self, name: str, array: Tensor) -> None:
        rows = self._bounds.get(name)
        if rows is None or not array.size:
            return
        least, most = int(array.min()), int(array.max())
        if least < -rows or most >= rows:
            wrong = most if most >= rows else least
            raise ExecutionError.of(
                self._what, f"input {name!r} has {wrong}, but there are {rows} rows to pick from"
            )


def _settled(tensor: Any) -> Any:
    """Wait until it is complete: who reads it next may do so on another stream."""
    if tensor.is_cuda:
        torch.cuda.current_stream(tensor.device).synchronize()
    return tensor
