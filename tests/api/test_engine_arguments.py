"""Arguments of an engine that are of another kind altogether."""

from __future__ import annotations

from typing import Any

import pytest

import coinfer
from coinfer.errors import ConfigurationError


@pytest.mark.parametrize("models", [["detector.onnx"], None, 3, {"detector.onnx"}])
def test_models_without_names_are_one_clear_error(models: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"write \{'NAME': 'FILE\.onnx', \.\.\.\}"):
        coinfer.Engine(models)


@pytest.mark.parametrize("limits", [3, None, {"max_waiting": 10}])
def test_limits_that_are_none_are_one_clear_error(limits: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"limits are .+; give coinfer\.Limits"):
        coinfer.Engine({"net": "zoo:lenet"}, limits=limits)


ONE = coinfer.Processor(name="p", backend="null", units=frozenset({"u"}))


@pytest.mark.parametrize("processors", [3, ["cpu0"], "cpu0", iter([]), ONE])
def test_processors_that_are_none_are_one_clear_error(processors: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=r"processors are .+; give a list of coinfer\.Proc"
    ):
        coinfer.Engine({"net": "zoo:lenet"}, processors=processors)
