"""Which requests count as refused for what they brought."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from coinfer.core.commands import Execution
from coinfer.core.events import Failed
from coinfer.errors import ExecutionError
from coinfer.machine.span import Span
from coinfer.runtime.span_io import SpanIO
from coinfer.runtime.worker import Job, Use, _perform
from coinfer.testing.machine import request


class Refusing:
    def run(self, _inputs: object) -> Any:
        raise ExecutionError.of("it", "an index is out of bounds", is_of_inputs=True)


@pytest.mark.parametrize(("count", "refused"), [(1, [0]), (3, [])])
def test_of_several_in_a_run_nobody_knows_whose_inputs_it_was(
    count: int, refused: list[int]
) -> None:
    requests = tuple(request("m", id=number) for number in range(count))
    execution = Execution(0, "m", Span(), "p", requests, 0.0, 1.0)
    whole = SpanIO(
        ("x",), ("y",), frozenset("x"), frozenset("y"), stacks=True, is_last=True, is_whole=True
    )
    values = [{"x": np.zeros((1, 2), np.float32)} for _ in requests]
    use = Use()
    event, _ = _perform(Job(execution, Refusing(), whole, values), use)  # type: ignore[arg-type]
    assert isinstance(event, Failed)
    assert list(use.refused) == refused
