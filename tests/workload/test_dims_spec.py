"""Dims: what a scenario may say of the sizes of open dimensions, and what it may not."""

from __future__ import annotations

from fractions import Fraction

import pytest

from coinfer.errors import ScenarioError
from coinfer.workload.input_spec import RandomInputs
from coinfer.workload.scenario import Scenario
from coinfer.workload.scenario_file import parse_scenario


def scenario(dims: str, inputs: str = "") -> Scenario:
    return parse_scenario(
        f"models:\n  rec:\n    source: rec.onnx\n    dims: {dims}\n{inputs}"
        "arrivals: {rec: {closed: 1}}\n",
        origin="s.yaml",
    )


def choices(dims: str) -> list[tuple[dict[str, int], float]]:
    inputs = scenario(dims).models["rec"].inputs
    assert isinstance(inputs, RandomInputs)
    return [(dict(choice.sizes), float(choice.weight)) for choice in inputs.dims]


@pytest.mark.parametrize(
    ("dims", "expected"),
    [
        ("{}", []),
        ("{width: 64}", [({"width": 64}, 1)]),
        ('{"x:2": 64}', [({"x:2": 64}, 1)]),
        ("{boxes: 0}", [({"boxes": 0}, 1)]),
        ("{width: [48, 96]}", [({"width": 48}, 1), ({"width": 96}, 1)]),
        ("{width: [48, 96, 48]}", [({"width": 48}, 2), ({"width": 96}, 1)]),
        ("{width: {48: 3, 96: 0.5}}", [({"width": 48}, 3), ({"width": 96}, 0.5)]),
        ("{width: {'48': 3, 1_000: 1}}", [({"width": 48}, 3), ({"width": 1000}, 1)]),
        ("{width: {0: 1, 4_8: 1, 48: 2}}", [({"width": 0}, 1), ({"width": 48}, 3)]),
        # Independent: each with each.
        (
            "{h: 32, w: {48: 3, 96: 1}, n: [1, 2]}",
            [
                ({"h": 32, "w": 48, "n": 1}, 3),
                ({"h": 32, "w": 48, "n": 2}, 3),
                ({"h": 32, "w": 96, "n": 1}, 1),
                ({"h": 32, "w": 96, "n": 2}, 1),
            ],
        ),
        # Together.
        (
            "[{h: 32, w: 48, weight: 3}, {w: 320, h: 32}]",
            [({"h": 32, "w": 48}, 3), ({"h": 32, "w": 320}, 1)],
        ),
        ("[{h: 1, w: 2}, {w: 2, h: 1, weight: 0.5}]", [({"h": 1, "w": 2}, 1.5)]),
    ],
)
def test_sizes_are_read_apart_or_together(
    dims: str, expected: list[tuple[dict[str, int], float]]
) -> None:
    assert choices(dims) == expected


def test_weights_are_the_numbers_that_were_written() -> None:
    inputs = scenario("{w: {48: 0.1, 96: 0.2}}").models["rec"].inputs
    assert isinstance(inputs, RandomInputs)
    assert [choice.weight for choice in inputs.dims] == [Fraction(1, 10), Fraction(1, 5)]


def test_sizes_beside_the_inputs_and_among_them_are_the_same() -> None:
    beside = scenario("{w: [48, 96]}", "    inputs: {random: 3}\n").models["rec"].inputs
    among = parse_scenario(
        "models: {rec: {source: r, inputs: {random: 3, dims: {w: [48, 96]}}}}\n"
        "arrivals: {rec: {closed: 1}}\n"
    )
    assert among.models["rec"].inputs == beside == RandomInputs(random=3, dims={"w": [48, 96]})


@pytest.mark.parametrize("dims", ["{w: 48}", "{h: [1, 2], w: {48: 0.1, 96: 3}}", "{}"])
def test_a_scenario_with_sizes_is_the_same_when_written_and_read_again(dims: str) -> None:
    inputs = scenario(dims).models["rec"].inputs
    again = parse_scenario(scenario(dims).model_dump_json(by_alias=True)).models["rec"].inputs
    assert isinstance(inputs, RandomInputs)
    assert isinstance(again, RandomInputs)
    assert [({**c.sizes}, c.weight) for c in again.dims] == [
        ({**c.sizes}, c.weight) for c in inputs.dims
    ]


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ("3", "s.yaml:4: models.rec.dims: expected sizes by dimension, e.g. {width: [48, 96]}"),
        ("[]", "s.yaml:4: models.rec.dims: must not be empty"),
        ("{width: -1}", "s.yaml:4: models.rec.dims.width: must be at least 0, is -1"),
        ("{width: 1.5}", "s.yaml:4: models.rec.dims.width: expected a whole number, got 1.5"),
        ("{width: yes}", "expected a whole number, got yes, which without quotes is true in YAML"),
        ("{width: []}", "s.yaml:4: models.rec.dims.width: must not be empty"),
        ("\n      width:\n      - 1\n      - -2", "s.yaml:7: models.rec.dims.width[1]: must be at"),
        ("{width: {}}", "s.yaml:4: models.rec.dims.width: must not be empty"),
        (
            "\n      width:\n        48: 0",
            "s.yaml:6: models.rec.dims.width.48: must be greater than",
        ),
        ("{width: {-48: 1}}", "s.yaml:4: models.rec.dims.width.-48: must be at least 0, is -48"),
        (
            "{width: {wide: 1}}",
            "s.yaml:4: models.rec.dims.width.wide: expected a size, a whole number like 64, got "
            "'wide'",
        ),
        ("{width: {0x10: 1}}", "expected a size, a whole number like 64, got '0x10'"),
        ("{width: {017: 1}}", "s.yaml:4: 017: a field's name must be text"),
        ("{width: {48: 1, 48: 2}}", "s.yaml:4: 48: is given twice"),
        ("[3]", "s.yaml:4: models.rec.dims[0]: expected a mapping of fields, got 3"),
        ("[{weight: 3}]", "s.yaml:4: models.rec.dims[0]: names no dimension; add one"),
        (
            "\n    - {h: 32, w: 4}\n    - {h: 32}",
            "s.yaml:6: models.rec.dims[1]: names h, the first entry h, w; name the same dimensions",
        ),
        ("[{h: -1}]", "s.yaml:4: models.rec.dims[0].h: must be at least 0, is -1"),
        ("[{h: 1, weight: 0}]", "s.yaml:4: models.rec.dims[0].weight: must be greater than 0"),
        (
            f"{{h: {list(range(33))}, w: {list(range(32))}}}",
            "s.yaml:4: models.rec.dims: 1,056 combinations of sizes are more than 1,024",
        ),
    ],
)
def test_wrong_sizes_are_one_line_with_the_field_and_the_remedy(dims: str, message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        scenario(dims)
    assert message in str(caught.value)
    assert str(caught.value).count("s.yaml:") == 1


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ("{images: p}", "s.yaml:5: models.rec.inputs: have sizes of their own; remove `dims`"),
        ("data.npz", "s.yaml:5: models.rec.inputs: have sizes of their own; remove `dims`"),
        (
            "{random: 3, dims: {width: 3}}",
            "s.yaml:5: models.rec.inputs: state `dims`, and the model does too; keep one of them",
        ),
    ],
)
def test_sizes_are_stated_in_one_place(inputs: str, message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        scenario("{width: 64}", f"    inputs: {inputs}\n")
    assert message in str(caught.value)


def test_a_number_is_a_name_as_it_is_written() -> None:
    wanted = parse_scenario("models: {7: zoo:lenet}\narrivals: {7: {closed: 1}}\n")
    assert list(wanted.models) == list(wanted.processes) == ["7"]
