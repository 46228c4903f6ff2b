"""Options of a policy on the command line are YAML, and reach the policy of the scenario."""

from __future__ import annotations

import pytest

from coinfer.cli.options import policy_options
from coinfer.errors import ConfigurationError
from coinfer.workload.scenario_file import parse_scenario

TEXT = """
models: {a: "zoo:lenet"}
arrivals: {a: {closed: 1}}
policy: {name: priority, ageing_s: 3}
"""


def test_values_are_yaml() -> None:
    assert policy_options(["x=1.5", "t={p: {a: 1}}", "s=inf"]) == {
        "x": 1.5,
        "t": {"p": {"a": 1}},
        "s": "inf",
    }


@pytest.mark.parametrize("text", ["ageing_s", "=2", "x={a: "])
def test_what_is_not_name_and_yaml_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigurationError, match="NAME=YAML"):
        policy_options([text])


@pytest.mark.parametrize("text", ["ageing_s=1:30", "t={p: {a: 010}}", "t={a: 1, a: 2}"])
def test_a_value_is_read_as_in_a_scenario(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"is a number in base|is given twice"):
        policy_options([text])


def test_options_add_to_those_of_the_same_policy_and_replace_those_of_another() -> None:
    scenario = parse_scenario(TEXT)
    same = scenario.with_options(policy_options={"table": {"cpu0": {"a": 1}}})
    assert same.policy.options == {"ageing_s": 3, "table": {"cpu0": {"a": 1}}}
    other = scenario.with_options(policy="sjf", policy_options={"patience_s": 1})
    assert (other.policy.name, other.policy.options) == ("sjf", {"patience_s": 1})
