"""Scenario files: what they say, and what is said when they are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from coinfer.core.request import OnLate
from coinfer.errors import ConfigurationError, ScenarioError
from coinfer.machine.processor import WAKE_S, Processor
from coinfer.workload.arrivals import Closed, Gamma, Mix, Periodic, Poisson, Trace
from coinfer.workload.input_spec import ArrayInputs, ImageInputs, RandomInputs
from coinfer.workload.processor_spec import DefaultProcessors, ProcessorSpec
from coinfer.workload.scenario_file import load_scenario, parse_scenario

EXAMPLES = Path(__file__).parents[2] / "examples"

FULL = """\
name: all
models:
  short: zoo:lenet
  full:
    source: models/det.onnx
    inputs: {images: photos/, size: [224, 200], mean: [0.5], std: [0.25], crop: none}
    deadline: 33ms
    priority: 5
    on_late: drop
    batch: 2
  noise: {source: "zoo:lenet", inputs: {random: 3, dims: {seq: 64}}}
  bursts: {source: "zoo:lenet", inputs: random}
  recorded: {source: /abs/x.onnx, inputs: data.npz}
arrivals:
  short: {periodic: 30/s, phase: 1ms, jitter: 2ms}
  full: {poisson: 90/min}
  noise: {closed: 2}
  bursts: {gamma: 20, cv: 4}
  recorded: {trace: t.csv}
duration: 2min
warmup: 500ms
seed: 7
policy: {name: priority, ageing_s: 0.5}
processors: [cpu0, {name: duo, backend: openvino, cores: [0, 1], precision: bf16, options: {A: 1}}]
precision: {allow: [bf16], tolerance: 0.02}
admission_limit: 50
"""

VALID = "models: {net: zoo:lenet}\narrivals: {net: {closed: 1}}\n"


def error_of(text: str) -> str:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(text, origin="s.yaml")
    return str(caught.value)


def test_every_field_is_read() -> None:
    scenario = parse_scenario(FULL, base=Path("/dir"))
    assert (scenario.name, scenario.seed, scenario.admission_limit) == ("all", 7, 50)
    assert (scenario.duration_s, scenario.warmup_s, scenario.end_s) == (120.0, 0.5, 120.5)
    assert (scenario.policy.name, scenario.policy.options) == ("priority", {"ageing_s": 0.5})
    assert (scenario.precision.allow, scenario.precision.tolerance) == (("bf16",), 0.02)
    full = scenario.models["full"]
    assert (full.deadline_s, full.priority, full.batch) == (0.033, 5, 2)
    assert full.on_late is OnLate.DROP
    assert {name: spec.source for name, spec in scenario.models.items()} == {
        "short": "zoo:lenet",
        "full": "/dir/models/det.onnx",
        "noise": "zoo:lenet",
        "bursts": "zoo:lenet",
        "recorded": "/abs/x.onnx",
    }
    assert {name: spec.inputs for name, spec in scenario.models.items()} == {
        "short": RandomInputs(),
        "full": ImageInputs(
            images=Path("/dir/photos"), size=(224, 200), mean=(0.5,), std=(0.25,), crop="none"
        ),
        "noise": RandomInputs(random=3, dims={"seq": 64}),
        "bursts": RandomInputs(),
        "recorded": ArrayInputs(npz=Path("/dir/data.npz")),
    }
    assert scenario.mix is None
    assert scenario.processes == {
        "short": Periodic(periodic=30.0, phase=0.001, jitter=0.002),
        "full": Poisson(poisson=1.5),
        "noise": Closed(closed=2),
        "bursts": Gamma(gamma=20.0, cv=4.0),
        "recorded": Trace(trace=Path("/dir/t.csv")),
    }


def test_defaults_are_those_of_the_main_job() -> None:
    scenario = parse_scenario(VALID)
    assert scenario.policy.name == "earliest_finish"
    assert scenario.processors == DefaultProcessors()
    assert scenario.precision.allow == ()
    assert scenario.models["net"].on_late is OnLate.RUN


def test_a_described_processor_may_declare_what_it_supports() -> None:
    text = VALID + (
        "processors: [{name: npu, backend: x, units: [npu], "
        "supported_ops: [Conv, com.microsoft.Gelu]}]\n"
    )
    [spec] = parse_scenario(text).processors
    assert spec.processor().supported_ops == {"Conv", "com.microsoft.Gelu"}
    assert spec.processor().declared("Conv")
    assert not spec.processor().declared("Relu")
    text = text.replace("supported_ops: [Conv, ", "unsupported_ops: [Relu, ")
    [spec] = parse_scenario(text).processors
    assert spec.processor().declared("Conv")
    assert not spec.processor().declared("Relu")


def test_described_processors_become_processors() -> None:
    processors = parse_scenario(FULL).processors
    assert isinstance(processors, tuple)
    named, described = processors
    assert named == "cpu0"
    assert isinstance(described, ProcessorSpec)
    assert described.processor() == Processor(
        name="duo",
        backend="openvino",
        units=frozenset({"core0", "core1"}),
        threads=2,
        precision="bf16",
        cores=(0, 1),
        options={"A": "1"},
        wake_s=WAKE_S,
    )


def test_an_express_processor_is_its_own_unit() -> None:
    text = VALID + "processors: [{name: cpu0+, backend: x, cores: [0], overlays: [core0]}]\n"
    [spec] = parse_scenario(text).processors
    assert isinstance(spec, ProcessorSpec)
    express = spec.processor()
    assert (express.units, express.overlays) == ({"core0+"}, {"core0"})
    assert (express.threads, express.cores) == (1, (0,))


def test_a_device_other_than_the_cpu_is_its_own_unit() -> None:
    text = VALID + "processors: [{name: gpu, backend: onnxruntime, device: 'CUDA:0'}]\n"
    [spec] = parse_scenario(text).processors
    assert isinstance(spec, ProcessorSpec)
    assert spec.processor().units == {"CUDA:0"}
    assert spec.processor().wake_s == 0, "nobody measured it there"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("default", DefaultProcessors()),
        (
            "{backends: [onnxruntime], cores: [1]}",
            DefaultProcessors(backends=("onnxruntime",), cores=(1,)),
        ),
        ("{preempt: true}", DefaultProcessors(preempt=True)),
        ("[cpu0, cpu1, cpu0+]", ("cpu0", "cpu1", "cpu0+")),
    ],
)
def test_processors_are_found_ones_or_named_ones(text: str, found: object) -> None:
    assert parse_scenario(f"{VALID}processors: {text}\n").processors == found


def test_a_mix_without_weights_is_equal() -> None:
    scenario = parse_scenario(
        "models: {a: zoo:lenet, b: zoo:lenet}\narrivals: {mix: {in_flight: 4}}\n"
    )
    assert scenario.mix == Mix(in_flight=4)
    assert scenario.processes == {}


def test_writing_a_scenario_and_reading_it_again_gives_the_same() -> None:
    scenario = parse_scenario(FULL)
    assert parse_scenario(scenario.model_dump_json(by_alias=True)) == scenario


def test_anchors_and_merges_are_understood() -> None:
    scenario = parse_scenario(
        "models:\n"
        "  a: &base {source: 'zoo:lenet', priority: 1}\n"
        "  b: {<<: *base, priority: 2}\n"
        "arrivals: {mix: {in_flight: 1}}\n"
    )
    assert [spec.priority for spec in scenario.models.values()] == [1, 2]


# --- what is wrong, and where -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # The text is not YAML, or not one document of fields.
        ("", "s.yaml:1: the file is empty; describe a scenario"),
        ("models:\n  a: [1\nb: 2\n", "s.yaml:3: not valid YAML: expected ',' or ']'"),
        ("a: b: c\n", "s.yaml:1: not valid YAML: mapping values are not allowed here"),
        ("a: 1\n--- \nb: 2\n", "s.yaml:2: not valid YAML: but found another document"),
        ("a: !!python/name:os.system x\n", "s.yaml:1: not valid YAML: could not determine"),
        ("a: 2020-13-45\n", "s.yaml: not valid YAML: month must be in 1..12"),
        ("a: \x01\n", "s.yaml: not valid YAML: "),
        ("[" * 1000, "s.yaml: not valid YAML: it nests too deeply"),
        ("- 1\n", "s.yaml:1: expected a mapping of fields, got a list"),
        (VALID + "seed: 1\nseed: 2\n", "s.yaml:4: seed: is given twice, first in line 3"),
        (VALID + 'name: "a\\0b"\n', "s.yaml:3: name: 'a\\x00b' holds a null character; remove it"),
        (VALID + '"na\\0me": b\n', "s.yaml:3: 'na\\x00me' holds a null character; remove it"),
        (
            "models:\n  on: zoo:lenet\n",
            "s.yaml:2: on: a field's name must be text; put it in quotes",
        ),
        ("? [a]\n: 1\n", "s.yaml:1: a collection: a field's name must be text"),
        # Fields that are missing or unknown.
        ("models: {net: zoo:lenet}\n", "s.yaml:1: arrivals: is missing; add it"),
        (
            "models:\n  net: {priority: 1}\narrivals: {net: {closed: 1}}\n",
            "s.yaml:2: models.net.source: is missing; add it",
        ),
        (
            VALID + "duraton: 3\n",
            "s.yaml:3: duraton: unknown field 'duraton'; did you mean 'duration'?",
        ),
        (
            VALID.replace("zoo:lenet", "\n  {source: 'zoo:lenet',\n  deadlin: 3ms}"),
            "s.yaml:3: models.net.deadlin: unknown field 'deadlin'; did you mean 'deadline'? "
            "Known: batch, deadline, dims, inputs, on_late, partition, priority, source, variants",
        ),
        (
            VALID.replace("closed: 1", "poisson: 1, cv: 2"),
            "s.yaml:2: arrivals.net.cv: unknown field",
        ),
        # Values of the wrong kind.
        (VALID + "duration: 3 parsecs\n", "s.yaml:3: duration: '3 parsecs' is not a duration"),
        (VALID + "duration: 0\n", "s.yaml:3: duration: must be greater than 0"),
        (
            VALID + "duration: [1]\n",
            "s.yaml:3: duration: expected a duration like 33ms, got a list",
        ),
        (VALID + "duration: .inf\n", "s.yaml:3: duration: inf is not a duration"),
        (VALID + "warmup: -1s\n", "s.yaml:3: warmup: '-1s' is not a duration"),
        (VALID + "seed: true\n", "s.yaml:3: seed: expected a whole number, got True"),
        (VALID + "seed: '5'\n", "s.yaml:3: seed: expected a whole number, got '5'"),
        (VALID + "seed: -1\n", "s.yaml:3: seed: must be at least 0, is -1"),
        (VALID + "name: 5\n", "s.yaml:3: name: expected text (put it in quotes), got 5"),
        (
            VALID + "admission_limit: 1.5\n",
            "s.yaml:3: admission_limit: expected a whole number, got 1.5",
        ),
        (VALID + "models: 3\n", "s.yaml:3: models: is given twice"),
        (
            "models: []\narrivals: {}\n",
            "s.yaml:1: models: expected a mapping of fields, got a list",
        ),
        ("models: {}\narrivals: {a: {closed: 1}}\n", "s.yaml:1: models: must not be empty"),
        (
            "models: {'a b': zoo:lenet}\n",
            "s.yaml:1: models.a b: as a name must start with a letter",
        ),
        ("models: {net: ''}\n", "s.yaml:1: models.net.source: must not be empty"),
        # Models.
        (
            "models:\n  net:\n    source: zoo:lenet\n    on_late: dorp\n",
            "s.yaml:4: models.net.on_late: must be one of 'run' or 'drop', is 'dorp'",
        ),
        (
            "models:\n  net:\n    source: zoo:lenet\n    on_late: drop\n",
            "s.yaml:4: models.net.on_late: drop needs a deadline; add e.g. `deadline: 33ms`",
        ),
        (
            "models:\n  net:\n    source: zoo:lenet\n    inputs: noise\n",
            "s.yaml:4: models.net.inputs: expected exactly one source of inputs",
        ),
        (
            "models:\n  net:\n    source: zoo:lenet\n    inputs: {images: p, npz: q}\n",
            "s.yaml:4: models.net.inputs: expected exactly one source of inputs",
        ),
        (
            "models:\n  net:\n    source: a\n    inputs:\n      images: p\n      size: [1, 0]\n",
            "s.yaml:6: models.net.inputs.size[1]: must be at least 1, is 0",
        ),
        (
            "models:\n  net:\n    source: zoo:lenet\n    inputs: {images: p, std: [0]}\n",
            "s.yaml:4: models.net.inputs.std[0]: must be greater than 0, is 0",
        ),
        (
            "models:\n  net:\n    source: zoo:lenet\n    inputs: {images: p, crop: top}\n",
            "s.yaml:4: models.net.inputs.crop: must be one of 'center' or 'none', is 'top'",
        ),
        # Arrivals.
        ("models: {net: zoo:lenet}\narrivals: 3\n", "s.yaml:2: arrivals: expected {mix: ...} or"),
        ("models: {net: zoo:lenet}\narrivals:\n", "s.yaml:2: arrivals: expected {mix: ...} or"),
        (
            VALID.replace("{closed: 1}", "30/s"),
            "s.yaml:2: arrivals.net: expected an arrival process",
        ),
        (
            VALID.replace("closed", "close"),
            "s.yaml:2: arrivals.net: no process is named; give exactly",
        ),
        (
            VALID.replace("closed: 1", "closed: 1, poisson: 2"),
            "s.yaml:2: arrivals.net: both closed and poisson are given",
        ),
        (
            VALID.replace("closed: 1", "closed: 0"),
            "s.yaml:2: arrivals.net.closed: must be at least 1",
        ),
        (
            VALID.replace("closed: 1", "poisson: 0/s"),
            "s.yaml:2: arrivals.net.poisson: must be greater",
        ),
        (
            VALID.replace("closed: 1", "poisson: 30ms"),
            "s.yaml:2: arrivals.net.poisson: '30ms' is not a rate",
        ),
        (VALID.replace("closed: 1", "gamma: 3/s"), "s.yaml:2: arrivals.net.cv: is missing; add it"),
        (
            VALID.replace("closed: 1", "periodic: 100/s, jitter: 11ms"),
            "s.yaml:2: arrivals.net: jitter of 0.011 s is longer than the period of 0.01 s",
        ),
        (
            "models:\n  net1: zoo:lenet\narrivals:\n  net1: {closed: 1}\n  net2: {closed: 1}\n",
            "s.yaml:5: arrivals.net2: unknown model 'net2'; did you mean 'net1'? Known: net1",
        ),
        (
            "models:\n  a: zoo:lenet\n  b: zoo:lenet\narrivals:\n  a: {closed: 1}\n",
            "s.yaml:4: arrivals: model 'b' gets no requests; give it arrivals or remove it",
        ),
        (
            "models: {a: zoo:lenet}\narrivals:\n  mix:\n    in_flight: 1\n    weights: {b: 1}\n",
            "s.yaml:5: arrivals.mix.weights.b: unknown model 'b'",
        ),
        (
            "models: {a: zoo:lenet}\narrivals:\n  mix: {in_flight: 1, weights: {a: 0}}\n",
            "s.yaml:3: arrivals.mix.weights.a: must be greater than 0, is 0",
        ),
        (
            "models: {a: zoo:lenet}\narrivals:\n  mix: {weights: {a: 1}}\n",
            "s.yaml:3: arrivals.mix.in_flight: is missing; add it",
        ),
        (
            "models: {a: zoo:lenet}\narrivals:\n  mix: {in_flight: 1}\n  a: {closed: 1}\n",
            "s.yaml:4: arrivals.a: unknown field 'a'; known: mix",
        ),
        (
            VALID.replace("closed: 1", "closed: 1001"),
            "s.yaml:2: arrivals.net.closed: 1001 requests in flight exceed the admission limit",
        ),
        # What to run it with.
        (VALID + "policy: 3\n", "s.yaml:3: policy: expected a mapping of fields, got 3"),
        (VALID + "policy: {nme: edf}\n", "s.yaml:3: policy.name: is missing; add it"),
        (
            VALID + "processors: some\n",
            "s.yaml:3: processors: expected `default`, {backends: [...]}",
        ),
        (VALID + "processors: []\n", "s.yaml:3: processors: expected `default`, {backends: [...]}"),
        (
            VALID + "processors: {backend: x}\n",
            "s.yaml:3: processors.backend: unknown field 'backend'; did",
        ),
        (
            VALID + "processors:\n- cpu0\n- {name: a, backend: x}\n",
            "s.yaml:5: processors[1]: nothing says what it occupies; add e.g. `cores: [0]`",
        ),
        (
            VALID + "processors:\n- {name: a, backend: x, cores: [0, 1, 0]}\n",
            "s.yaml:4: processors[0].cores: core 0 is there twice; name each core once",
        ),
        (
            VALID + "processors:\n- {name: a, backend: x, cores: [0], precison: fp32}\n",
            "s.yaml:4: processors[0].precison: unknown field 'precison'; did you mean 'precision'?",
        ),
        (
            VALID + "processors:\n- {name: a, backend: x, cores: [0], unsupported_ops: [Cnv]}\n",
            "s.yaml:4: processors[0].unsupported_ops: unknown operator 'Cnv'; did you mean 'Conv'?",
        ),
        (
            VALID + "processors:\n- {name: a, backend: x, cores: [0], threads: 2, overlays: [c]}\n",
            "s.yaml:4: processors[0].threads: must be 1 beside `overlays`",
        ),
        (
            VALID + "processors:\n- {name: a, backend: x, units: [c], overlays: [c]}\n",
            "s.yaml:4: processors[0].units: must not be among `overlays`; leave them out",
        ),
        (
            VALID + "processors:\n- {name: a, backend: x, cores: [0], precision: bf16}\n",
            "s.yaml:4: processors[0].precision: bf16 is not allowed; add `precision: {allow:",
        ),
        (
            VALID + "precision: {allow: [bf16]}\n",
            "s.yaml:3: precision.allow: needs a `tolerance` beside",
        ),
        (
            VALID + "precision: {allow: [fp8], tolerance: 0.1}\n",
            "s.yaml:3: precision.allow[0]: must be one of 'bf16', 'fp16' or 'int8', is 'fp8'",
        ),
        # YAML reads something else than a person does.
        (
            "models: {net: zoo:lenet}\narrivals:\n  net:\n    periodic: 1:30\n",
            "s.yaml:4: arrivals.net.periodic: 1:30 is a number in base 60 in YAML; write a plain",
        ),
        (VALID + "duration: 1:30.5\n", "s.yaml:3: duration: 1:30.5 is a number in base 60"),
        (VALID + "seed: 0o17\n", "s.yaml:3: seed: expected a whole number, got '0o17'"),
        (VALID + "seed: -017\n", "s.yaml:3: seed: -017 is a number in base 8 in YAML"),
        (VALID + "policy: {name: edf, a: [1, 2:30]}\n", "s.yaml:3: policy.a[1]: 2:30 is a number"),
        (VALID + "name: 1:30\n", "or put it in quotes if it is text"),
        (
            VALID + "policy: off\n",
            "s.yaml:3: policy: expected a mapping of fields, got off, which without quotes is",
        ),
        (
            VALID + "policy: {name: off}\n",
            "s.yaml:3: policy.name: expected text (put it in quotes)",
        ),
        (VALID + "name: 2026-11-28\n", "got 2026-11-28, which without quotes is a date in YAML"),
        (VALID + "duration: 2026-11-28\n", "expected a duration like 33ms, got 2026-11-28"),
        (
            "models: {net: no}\narrivals: {net: {closed: 1}}\n",
            "s.yaml:1: models.net: expected a mapping of fields, got no, which without quotes is",
        ),
        (
            "models: {net: zoo:lenet, b: zoo:lenet}\n"
            "arrivals: {net: {closed: 1}, b: {after: no}}\n",
            "s.yaml:2: arrivals.b.after: expected text (put it in quotes), got no, which without",
        ),
    ],
)
def test_a_wrong_scenario_names_line_field_and_remedy(text: str, message: str) -> None:
    found = error_of(text)
    assert message in found
    assert "\n" not in message
    for jargon in ("pydantic", "Input should", "function-", "union", "validator", "model_type"):
        assert jargon not in found


def test_digits_may_be_grouped_and_quotes_make_text() -> None:
    found = parse_scenario(
        VALID + "admission_limit: 1_000\nduration: 1_000ms\nwarmup: 1_0.5\nname: '1:30'\n"
    )
    assert (found.admission_limit, found.duration_s, found.warmup_s) == (1000, 1.0, 10.5)
    assert found.name == "1:30"


def test_a_model_may_be_called_no_in_quotes() -> None:
    found = parse_scenario(
        "models: {'no': zoo:lenet, b: zoo:lenet}\narrivals: {'no': {closed: 1}, b: {after: 'no'}}\n"
    )
    assert set(found.models) == {"no", "b"}


def test_all_problems_are_listed_in_the_order_of_lines() -> None:
    found = error_of(
        "models: {net: zoo:lenet}\nseed: x\nduration: y\narrivals: {net: {closed: 0}}\n"
    )
    assert [part.split(": ")[0] for part in found.split("; s.")] == ["s.yaml:2", "yaml:3", "yaml:4"]


def test_at_most_five_problems_are_listed() -> None:
    found = error_of(VALID + "".join(f"x{number}: 1\n" for number in range(8)))
    assert found.count("unknown field") == 5
    assert found.endswith("; and 3 more")


@pytest.mark.parametrize("model", ["folder/detector.onnx", "zoo:lenet"])
def test_a_model_in_place_of_a_scenario_is_named_with_a_scenario_that_would_do(model: str) -> None:
    with pytest.raises(ScenarioError, match=r"that is a model, and no scenario") as caught:
        load_scenario(model)
    models, arrivals = str(caught.value).split("`")[1::2]
    assert parse_scenario(f"{models}\n{arrivals}\n").models["net"].source.endswith(model)


def test_a_file_that_is_missing_or_not_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"none\.yaml: no such scenario file; check the path"):
        load_scenario(tmp_path / "none.yaml")
    with pytest.raises(ScenarioError, match="cannot be read as text"):
        load_scenario(tmp_path)
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ScenarioError, match=r"bad\.yaml: cannot be read as text"):
        load_scenario(tmp_path / "bad.yaml")


def test_paths_start_in_the_folder_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(VALID.replace("zoo:lenet", "net.onnx"))
    assert load_scenario(tmp_path / "s.yaml").models["net"].source == str(tmp_path / "net.onnx")


# --- overriding -------------------------------------------------------------------------------


def test_options_override_what_the_file_says() -> None:
    scenario = parse_scenario(FULL).with_options(policy="edf", duration_s=3.0, seed=9)
    assert (scenario.policy.name, scenario.policy.options) == ("edf", {})
    assert (scenario.duration_s, scenario.seed) == (3.0, 9)
    assert parse_scenario(FULL).with_options(policy="priority").policy.options == {"ageing_s": 0.5}
    assert parse_scenario(FULL).with_options() == parse_scenario(FULL)


@pytest.mark.parametrize(
    "options", [{"duration_s": 0.0}, {"duration_s": float("nan")}, {"seed": -1}]
)
def test_overriding_with_nonsense_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        parse_scenario(VALID).with_options(**options)  # type: ignore[arg-type]


# --- shipped examples -------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_scenarios_are_valid_and_named_after_their_file(path: Path) -> None:
    assert load_scenario(path).name == path.stem


def test_every_shipped_photograph_has_a_licence() -> None:
    licences = (EXAMPLES / "photos" / "LICENSES.md").read_text()
    photos = sorted((EXAMPLES / "photos").glob("*.jpg"))
    assert len(photos) >= 6
    assert [photo.name for photo in photos if f"`{photo.name}`" not in licences] == []
    assert sum(photo.stat().st_size for photo in photos) < 600_000
