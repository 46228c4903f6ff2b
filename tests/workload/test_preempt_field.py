"""Whether urgent requests preempt: one of three words, and one error for all others."""

from __future__ import annotations

import pytest

from coinfer.errors import ScenarioError
from coinfer.workload.scenario_file import parse_scenario

TEXT = "models: {{a: 'zoo:lenet'}}\narrivals: {{a: {{periodic: 5}}}}\nprocessors: {{preempt: {}}}\n"


@pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False), ("auto", "auto")])
def test_these_are_known(text: str, value: object) -> None:
    assert parse_scenario(TEXT.format(text)).processors.preempt is value


@pytest.mark.parametrize("text", ["maybe", "1", "[]"])
def test_anything_else_is_one_error(text: str) -> None:
    with pytest.raises(ScenarioError, match=r"expected true, false or auto, got") as caught:
        parse_scenario(TEXT.format(text))
    assert str(caught.value).count("preempt") == 1
