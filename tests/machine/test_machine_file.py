"""Machine files: what they say, and what is said when they are wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from coinfer.errors import ConfigurationError, ScenarioError
from coinfer.machine.machine_file import load_machine, parse_machine
from coinfer.machine.machine_json import decode_machine, encode_machine
from coinfer.machine.submission import Submission

EXAMPLES = Path(__file__).parents[2] / "examples" / "machines"

FULL = """\
name: board
processors:
  cpu: {device: Cortex-A72, precision: fp32, units: [c0, c1]}
  core: {units: [c0]}
  stick: {one_model: true, load: 100ms}
  dongle: {one_model: true, resident: big}
times:
  small: {cpu: 10ms, core: {mean: 18ms, cv: 0}, stick: {mean: 2ms, load: 50ms}, dongle: 3ms}
  big: {cpu: 100ms, dongle: {mean: 20ms, cv: 1}, stick: 9ms}
cv: 0.1
slowdown: {cpu: {stick: 1.2}}
overhead: 50us
"""

VALID = "processors: {a: {}}\ntimes: {x: {a: 10ms}}\n"


def error_of(text: str) -> str:
    with pytest.raises(ScenarioError) as caught:
        parse_machine(text, origin="m.yaml")
    return str(caught.value)


def test_every_field_is_read() -> None:
    board = parse_machine(FULL)
    assert board.name == "board"
    assert board.overhead_s == pytest.approx(50e-6)
    assert [(p.name, p.device, p.precision) for p in board.processors] == [
        ("cpu", "Cortex-A72", "fp32"),
        ("core", "imagined", "fp32"),
        ("stick", "imagined", "fp32"),
        ("dongle", "imagined", "fp32"),
    ]
    cpu, core, stick, _ = board.processors
    assert cpu.excludes(core)
    assert not cpu.excludes(stick)
    assert board.profile.expected_s("small", "core") == pytest.approx(0.018)
    loads = {(k.model, k.processor): e.load_s for k, e in board.profile if e.load_s}
    assert loads == pytest.approx({("small", "stick"): 0.05, ("big", "stick"): 0.1})
    assert board.spreads[("big", "dongle")] == 1
    assert board.spreads[("small", "cpu")] == 0.1
    assert ("small", "core") not in board.spreads
    assert board.contention.slowdown("cpu", ["stick"]) == 1.2


def test_an_express_processor_has_a_unit_of_its_own_and_no_times() -> None:
    board = parse_machine(
        "processors: {cpu: {units: [c0]}, fast: {overlays: [c0]}}\ntimes: {x: {cpu: 10ms}}\n"
    )
    _, fast = board.processors
    assert (fast.units, fast.overlays) == ({"c0+"}, {"c0"})
    assert board.profile.processors() == ("cpu",)


def test_a_processor_may_declare_what_it_supports() -> None:
    machine = parse_machine(
        "processors: {cpu: {}, npu: {supported_ops: [Conv]}, dsp: {unsupported_ops: [Conv]}}\n"
        "times: {x: {cpu: 10ms, npu: 1ms}}\n"
    )
    assert [p.declared("Conv") for p in machine.processors] == [True, True, False]
    assert [p.declared("Relu") for p in machine.processors] == [True, False, True]
    assert [p.declares_support for p in machine.processors] == [False, True, True]


def test_one_that_swaps_keeps_all_models_and_one_that_keeps_has_its_resident_only() -> None:
    board = parse_machine(FULL)
    assert (board.swaps, board.keeps) == ({"stick"}, {"dongle"})
    assert board.profile.expected_s("small", "stick") == pytest.approx(0.002)
    assert board.profile.expected_s("small", "dongle") is None
    assert board.profile.expected_s("big", "dongle") == pytest.approx(0.02)


def test_load_times_of_all_models_make_a_processor_swap() -> None:
    text = "processors: {a: {one_model: true}}\ntimes:\n"
    both = text + "  x: {a: {mean: 1ms, load: 1s}}\n  y: {a: {mean: 1ms, load: 2s}}\n"
    one = text + "  x: {a: {mean: 1ms, load: 1s}}\n  y: {a: 1ms}\n"
    assert parse_machine(both).swaps == {"a"}
    assert parse_machine(one).keeps == {"a"}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_machines_are_valid_and_named_after_their_file(path: Path) -> None:
    assert load_machine(path).name == path.stem


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "m.yaml:1: the file is empty; describe a machine"),
        ("a: [1\n", "m.yaml:2: not valid YAML"),
        ("processors: {a: {}}\n", "m.yaml:1: times: is missing; add it"),
        ("times: {x: {a: 1}}\n", "m.yaml:1: processors: is missing; add it"),
        ("processors: {}\ntimes: {x: {}}\n", "m.yaml:1: processors: must not be empty"),
        ("processors: {a: {}}\ntimes: {}\n", "m.yaml:2: times: must not be empty"),
        (
            "processors: {a: {}}\ntimes:\n  x: {a: 1ms}\n  y: {}\n",
            "m.yaml:4: times.y: no processor runs it; give it a time or remove it",
        ),
        (
            "processors: {cpu: {}}\ntimes:\n  x: {cpu: 1ms,\n      gpu: 2ms}\n",
            "m.yaml:4: times.x.gpu: unknown processor 'gpu'; did you mean 'cpu'? Known: cpu",
        ),
        ("processors: {a: {}}\ntimes:\n  x:\n    a: 10 parsecs\n", "m.yaml:4: times.x.a"),
        ("processors: {a: {}}\ntimes:\n  x:\n    a: 0\n", "m.yaml:4: times.x.a"),
        (
            "processors: {a: {}}\ntimes:\n  x:\n    a: {cv: 1}\n",
            "m.yaml:4: times.x.a.mean: is missing; add it",
        ),
        (
            "processors: {a: {}}\ntimes:\n  x:\n    a: {mean: 1ms, cv: -1}\n",
            "m.yaml:4: times.x.a.cv: must be at least 0, is -1",
        ),
        (
            "processors: {a: {}}\ntimes:\n  x:\n    a: {mean: 1ms, std: 1}\n",
            "m.yaml:4: times.x.a.std: unknown field 'std'; known: cv, load, mean",
        ),
        (
            "processors: {a: {}}\ntimes:\n  x:\n    a: 1:30\n",
            "m.yaml:4: times.x.a: 1:30 is a number in base 60 in YAML",
        ),
        (VALID + "slowdown: {a: {a: 01}}\n", "m.yaml:3: slowdown.a.a: 01 is a number in base 8"),
        (VALID + "name: off\n", "got off, which without quotes is false in YAML"),
        (VALID + "cv: wide\n", "m.yaml:3: cv: expected a number, got 'wide'"),
        (VALID + "overhead: -1us\n", "m.yaml:3: overhead: '-1us' is not a duration"),
        (VALID + "contention: {}\n", "m.yaml:3: contention: unknown field 'contention'"),
        (VALID + "slowdown: {b: {a: 2}}\n", "m.yaml:3: slowdown.b: unknown processor 'b'"),
        (VALID + "slowdown: {a: {b: 2}}\n", "m.yaml:3: slowdown.a.b: unknown processor 'b'"),
        (
            VALID + "slowdown: {a: {a: 0}}\n",
            "m.yaml:3: slowdown.a.a: must be greater than 0, is 0",
        ),
        (
            "processors:\n  a: {resident: x}\ntimes: {x: {a: 1ms}}\n",
            "m.yaml:2: processors.a.resident: needs `one_model: true` beside it",
        ),
        (
            "processors:\n  a: {one_model: true, resident: x, load: 1s}\ntimes: {x: {a: 1ms}}\n",
            "m.yaml:2: processors.a.resident: is only for a model that is never changed",
        ),
        (
            "processors:\n  a: {}\n  b: {overlays: [c0]}\ntimes: {x: {a: 1ms}}\n",
            "m.yaml:1: processors: express processor 'b' stands on no other",
        ),
        (
            "processors:\n  a: {}\n  b: {overlays: [a]}\ntimes: {x: {a: 1ms, b: 1ms}}\n",
            "m.yaml:4: times.x.b: an express processor takes the times of another; remove",
        ),
        (
            "processors:\n  a: {one_model: true}\n  b: {overlays: [a]}\ntimes: {x: {a: 1ms}}\n",
            "m.yaml:3: processors.b: an express processor cannot be on one that holds one model",
        ),
        (
            "processors:\n  a: {one_model: true, resident: y}\ntimes: {x: {a: 1ms}}\n",
            "m.yaml:2: processors.a.resident: unknown model on 'a' 'y'; known: x",
        ),
    ],
)
def test_a_wrong_machine_names_line_field_and_remedy(text: str, message: str) -> None:
    found = error_of(text)
    assert message in found
    for jargon in ("pydantic", "Input should", "function-", "union", "validator", "TimesSpec"):
        assert jargon not in found


def test_a_file_that_is_missing_or_not_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"none\.yaml: no such machine file; check the path"):
        load_machine(tmp_path / "none.yaml")
    with pytest.raises(ScenarioError, match="cannot be read as text"):
        load_machine(tmp_path)


WIDE = """\
topology:
  cores:
    - {threads: ["0-3"], cache: 0}
    - {threads: ["4-7"], cache: 4}
widths:
  cpu:
    times: {net: {mean: 100ms, serial: 0.1, least: 21ms}}
    factors: {2 caches: 1.5}
cv: 0.1
slowdown: {cpu0: {cpu1: 1.2}}
"""


def test_widths_make_processors_over_the_cores_of_the_topology() -> None:
    machine = parse_machine(WIDE)
    assert [p.name for p in machine.processors[8:]] == [
        *("cpu0-1", "cpu2-3", "cpu4-5", "cpu6-7", "cpu0-3", "cpu4-7", "cpu_all"),
    ]
    row = {key.processor: entry.mean_s for key, entry in machine.profile}
    assert row["cpu0"] == pytest.approx(0.1)
    assert row["cpu4-5"] == pytest.approx(0.055)
    assert row["cpu0-3"] == pytest.approx(0.0325)
    assert row["cpu_all"] == pytest.approx(1.5 * 0.02125)
    assert machine.spreads["net", "cpu0-3"] == 0.1
    assert machine.topology is not None
    assert machine.topology.caches == (0, 4)
    assert decode_machine(encode_machine(machine)).topology == machine.topology


def test_how_requests_come_to_the_core_is_part_of_a_machine() -> None:
    machine = parse_machine(FULL)
    assert "submission" not in encode_machine(machine)
    for submission in (Submission(0.5, 0.25), Submission(0.5, 0.25, (0.75, 1.25))):
        told = replace(machine, submission=submission)
        assert decode_machine(encode_machine(told)).submission == submission
    assert encode_machine(replace(machine, submission=Submission(0.5)))["submission"] == [0.5, 0.0]


def test_how_hand_overs_vary_is_part_of_a_machine() -> None:
    machine = parse_machine(FULL)
    assert "overhead_factors" not in encode_machine(machine)
    told = replace(machine, overhead_factors=(0.75, 1.25))
    assert decode_machine(encode_machine(told)).overhead_factors == (0.75, 1.25)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("overhead_s", -0.5),
        ("overhead_factors", [1.0, 0.0]),
        ("submission", [-0.5, 0.0]),
        ("submission", [0.5, -0.25]),
        ("submission", [0.5, 0.25, [1.0, -1.0]]),
    ],
)
def test_a_machine_on_which_something_comes_before_it_is_due_is_damaged(
    field: str, value: object
) -> None:
    told = {**encode_machine(parse_machine(FULL)), field: value}
    with pytest.raises(ConfigurationError, match=f"damaged machine .{field}.*greater than"):
        decode_machine(told)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("2 caches", "3 caches", "unknown difference '3 caches'; did you mean '2 caches'?"),
        ('["4-7"]', '["3-7"]', "topology.cores: is no topology"),
        ('["4-7"]', '["4-7", "8-9"]', "not equally many"),
        ('["4-7"]', '["4-x"]', "topology.cores: is no topology"),
        ("slowdown: {cpu0", "processors: {cpu1: {}}\nslowdown: {cpu0", "two processors 'cpu1'"),
        ("{cpu1: 1.2}", "{cpu9: 1.2}", "unknown processor 'cpu9'"),
        ("serial: 0.1", "serial: 1.1", "widths.cpu.times.net.serial"),
    ],
)
def test_what_is_wrong_with_widths_is_named(old: str, new: str, said: str) -> None:
    assert said in error_of(WIDE.replace(old, new))


def test_widths_need_a_topology() -> None:
    assert "needs a `topology`" in error_of("widths: {cpu: {times: {net: {mean: 1ms}}}}\n")
