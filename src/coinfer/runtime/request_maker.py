"""Request maker: turns what a caller hands to `submit` into a request. Posts nothing."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from math import isfinite

from coinfer.backends.base import Tensors
from coinfer.core.request import OnLate, Request
from coinfer.errors import CoinferError
from coinfer.model.inputs import InputCheck
from coinfer.plan.work import SizeClasses
from coinfer.runtime import clock
from coinfer.runtime.arguments import (
    moment,
    positive_seconds,
    to_on_late,
    unknown_name,
    whole,
    wrong_inputs,
)

__all__ = ["RequestMaker"]

_INF = float("inf")
_new = tuple.__new__
"""Makes what every request needs: half the price of calling the class of a named tuple."""
_NORMAL = 0
"""The default priority; small integers are the same object everywhere."""


class RequestMaker:
    """Checks arguments and numbers requests. Any thread may call it.

    Args:
        models: Those that take requests, each as what checks the inputs of one; others add and
            remove them.

    Attributes:
        classes: By model, which class of sizes a request is of; of models of one size there are
            none.
    """

    __slots__ = ("_ids", "_models", "classes")

    def __init__(self, models: Mapping[str, InputCheck]) -> None:
        self._models = models
        self._ids = count()
        self.classes: dict[str, SizeClasses] = {}

    def check_of(self, name: object) -> InputCheck:
        """Return what checks the inputs of a loaded model.

        Raises:
            UnknownNameError: no such model.
        """
        try:
            check = self._models.get(name)  # type: ignore[call-overload]
        except Exception:  # noqa: BLE001 - foreign code: it cannot be hashed or compared
            check = None
        if check is None:
            raise unknown_name(name, self._models)
        found: InputCheck = check
        return found

    def checked(self, check: InputCheck, inputs: Tensors) -> tuple[Tensors, int]:
        """Return inputs, with the defaults of those that are left out, and their batch.

        Raises:
            InputError: an input's name, dtype or shape is wrong.
        """
        try:
            if type(inputs) is not dict:
                inputs = dict(inputs)
            batch = check(inputs)
        except CoinferError:
            raise
        except Exception as error:
            raise wrong_inputs(check.model, inputs, error) from error
        return (check.filled(inputs) if check.defaults else inputs), batch

    def request(
        self,
        name: str,
        inputs: Tensors,
        batch: int,
        deadline_s: float | None,
        priority: int,
        on_late: OnLate | str,
        due_s: float | None,
    ) -> Request:
        """Make a request of checked inputs; the arguments are those of `Engine.submit`.

        Raises:
            ConfigurationError: one of them makes no sense.
        """
        classes = self.classes
        shape, sizes = classes[name](inputs) if classes and name in classes else (0, 0)
        if due_s is None:
            arrival_s = clock.now()
        else:
            arrival_s = due_s if type(due_s) is float and isfinite(due_s) else moment(due_s)
        return _new(
            Request,
            (
                next(self._ids),
                name,
                arrival_s,
                _INF
                if deadline_s is None
                else arrival_s + positive_seconds("deadline_s", deadline_s),
                priority if priority is _NORMAL else whole("priority", priority),
                on_late if type(on_late) is OnLate else to_on_late(on_late),
                batch,
                shape,
                sizes,
            ),
        )
