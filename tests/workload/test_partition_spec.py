"""The `partition` section of a scenario, for all models and for one of them."""

from __future__ import annotations

import pytest

from coinfer.errors import ScenarioError
from coinfer.workload.partition_spec import PartitionSpec
from coinfer.workload.scenario import Scenario
from coinfer.workload.scenario_file import parse_scenario


def scenario(*lines: str, model: str = "{source: 'zoo:lenet'}") -> Scenario:
    text = f"models: {{a: {model}, b: 'zoo:lenet'}}\narrivals: {{mix: {{in_flight: 1}}}}\n"
    return parse_scenario(text + "\n".join(lines))


def test_without_the_section_models_run_whole() -> None:
    assert scenario().partition_of("a") is None


def test_the_section_holds_for_all_models_that_say_nothing_themselves() -> None:
    wanted = scenario(
        "partition: {mode: unit, minimum_subgraph_size: 3, max_span: 5ms}",
        model="{source: 'zoo:lenet', partition: whole}",
    )
    for_a, for_b = wanted.partition_of("a"), wanted.partition_of("b")
    assert for_a == PartitionSpec(mode="whole")
    assert for_b is not None
    assert (for_b.mode, for_b.minimum_subgraph_size, for_b.max_span_s) == ("unit", 3, 0.005)


def test_branches_are_cut_off_only_on_request() -> None:
    wanted = scenario("partition: merged", model="{source: 'zoo:lenet', partition: {branches: on}}")
    for_a, for_b = wanted.partition_of("a"), wanted.partition_of("b")
    assert for_a is not None
    assert for_b is not None
    assert (for_a.branches, for_b.branches) == (True, False)


def test_one_model_may_be_cut_while_the_others_are_not() -> None:
    wanted = scenario(model="{source: 'zoo:lenet', partition: {minimum_subgraph_size: search}}")
    assert wanted.partition_of("b") is None
    for_a = wanted.partition_of("a")
    assert for_a is not None
    assert (for_a.mode, for_a.minimum_subgraph_size) == ("merged", "search")


@pytest.mark.parametrize(
    ("section", "complaint"),
    [
        ("{mode: halves}", "mode"),
        ("halves", "mode"),
        ("{minimum_subgraph_size: 0}", "expected a number of operators from 1 or `search`, got 0"),
        ("{minimum_subgraph_size: find}", "got 'find'"),
        ("{minimum_subgraph_size: true}", "got True"),
        ("{max_span: 0ms}", "max_span"),
        ("{pieces: 0}", "pieces"),
        ("{max_spam: 5ms}", "did you mean 'max_span'"),
        ("{branches: maybe}", "branches"),
        ("{mode: whole, branches: true}", "needs `mode: merged` or `mode: unit`"),
    ],
)
def test_what_makes_no_sense_is_refused_with_file_line_and_field(
    section: str, complaint: str
) -> None:
    with pytest.raises(ScenarioError, match="scenario:3") as caught:
        scenario(f"partition: {section}")
    assert complaint in str(caught.value)
