"""Values that a backend owns go from span to span without anybody else looking into them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coinfer.backends.base import Placement, Tensor, Tensors
from coinfer.backends.values import Value, Values, joined, parted, run_part, to_host
from coinfer.machine.span import Span
from coinfer.runtime.span_io import SpanIO
from coinfer.runtime.span_run import run_span


class OnDevice:
    """A tensor on a device that does not exist; counts how often one was copied to the host."""

    copied_to_host = 0

    def __init__(self, secret: Tensor) -> None:
        self._secret = secret

    @property
    def owner(self) -> str:
        return "device"

    def to_host(self) -> Tensor:
        OnDevice.copied_to_host += 1
        return self._secret.copy()

    def copy(self) -> OnDevice:
        return OnDevice(self._secret.copy())

    def join(self, others: Sequence[Value]) -> OnDevice | None:
        alike = [other._secret for other in others if isinstance(other, OnDevice)]
        if len(alike) < len(others):
            return None
        return OnDevice(np.concatenate([self._secret, *alike]))

    def part(self, cuts: Sequence[int]) -> list[OnDevice]:
        return [OnDevice(array) for array in np.split(self._secret, cuts)]


class DeviceSession:
    """Adds 1 to `x`, on the device."""

    def run(self, inputs: Tensors) -> dict[str, Tensor]:
        return to_host(self.run_part(inputs))

    def run_part(self, inputs: Values) -> dict[str, Value]:
        owned = self.owned(inputs)["x"]
        assert isinstance(owned, OnDevice)
        return {"x": OnDevice(owned._secret + 1)}

    def owned(self, inputs: Values) -> dict[str, Value]:
        x = inputs["x"]
        return {"x": OnDevice(x) if isinstance(x, np.ndarray) else x}

    def placement(self) -> Placement:
        return Placement(operators={}, precision="fp32", threads=1)

    def close(self) -> None: ...


class HostSession(DeviceSession):
    """Adds 1 to `x`; knows arrays only."""

    run_part = property()  # type: ignore[assignment]  # as if it were not there

    def run(self, inputs: Tensors) -> dict[str, Tensor]:
        return {"x": inputs["x"] + 1}


EACH = SpanIO(
    reads=("x",),
    keeps=("x",),
    batched=frozenset({"x"}),
    batched_writes=frozenset({"x"}),
    stacks=True,
    is_last=False,
    is_whole=False,
)
ARRAYS = [np.full((rows, 2), rows, np.float32) for rows in (1, 3, 2)]
SIZES = [1, 3, 2]


def test_several_requests_cross_a_border_together_without_leaving_the_device() -> None:
    before = OnDevice.copied_to_host
    values: Sequence[Values] = [{"x": array} for array in ARRAYS]
    for _ in (Span(0, 0), Span(1, 1), Span(2, 2)):
        values = run_span(DeviceSession(), EACH, values, SIZES)
    assert OnDevice.copied_to_host == before
    for value, array in zip(values, ARRAYS, strict=True):
        np.testing.assert_array_equal(to_host(value)["x"], array + 3)


def test_a_library_that_knows_arrays_only_gets_arrays() -> None:
    given = {"x": OnDevice(ARRAYS[1])}
    [made] = run_span(HostSession(), EACH, [given], [3])
    assert isinstance(made["x"], np.ndarray)
    np.testing.assert_array_equal(made["x"], ARRAYS[1] + 1)
    assert run_part(HostSession(), given).keys() == {"x"}


def test_values_of_unlike_owners_are_joined_on_the_host() -> None:
    together = joined([OnDevice(ARRAYS[0]), ARRAYS[1]])
    np.testing.assert_array_equal(together, np.concatenate(ARRAYS[:2]))
    together = joined([OnDevice(array) for array in ARRAYS])
    assert isinstance(together, OnDevice)
    for part, array in zip(parted(together, [1, 4]), ARRAYS, strict=True):
        assert isinstance(part, OnDevice)
        np.testing.assert_array_equal(part.to_host(), array)


def test_what_is_an_array_stays_the_same_array() -> None:
    assert to_host({"x": ARRAYS[0]})["x"] is ARRAYS[0]
