"""A model's configuration is read as far as it applies; what does not is named with its line."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coinfer.errors import ConfigurationError
from coinfer.server.model_config import config_from_text, read_model_config
from coinfer.server.text_fields import text_fields
from coinfer.testing.models import tiny_linear, two_inputs

_WHOLE = """
name: "net"
platform: "onnxruntime_onnx"   # the only one
max_batch_size: 8
input [
  {
    name: "x"
    data_type: TYPE_FP32
    dims: [ 4 ]
  }
]
output { name: "y" data_type: TYPE_FP32 dims: 3 label_filename: "labels.txt" }
instance_group [ { count: 2 kind: KIND_CPU } ]
version_policy: { specific: { versions: [1, 3] } }
dynamic_batching {
  preferred_batch_size: [ 4, 8 ]
  max_queue_delay_microseconds: 500
  priority_levels: 3
  default_priority_level: 2
  default_queue_policy {
    timeout_action: DELAY
    default_timeout_microseconds: 20000
    allow_timeout_override: true
    max_queue_size: 100
  }
}
model_warmup [
  {
    name: "first"
    batch_size: 8
    inputs: { key: "x" value: { data_type: TYPE_FP32 dims: [ 4 ] random_data: true } }
  }
]
"""


def _error(text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        config_from_text(text, origin="config.pbtxt")
    return str(caught.value)


def test_what_applies_is_read() -> None:
    config = config_from_text(_WHOLE, origin="config.pbtxt")
    assert (config.name, config.backend, config.max_batch) == ("net", "onnxruntime", 8)
    [x], [y] = config.inputs, config.outputs
    assert (x.name, x.datatype, x.dims, x.line) == ("x", "FP32", (4,), 7)
    assert (y.name, y.dims, y.label_file) == ("y", (3,), "labels.txt")
    assert config.instances == 2
    assert config.versions.of([1, 2, 3]) == (1, 3)
    assert config.batching is not None
    assert config.batching.preferred == (4, 8)
    assert config.batching.max_delay_s == pytest.approx(500e-6)
    assert config.batching.default_timeout_s == pytest.approx(0.02)
    assert not config.batching.drops_late
    assert (config.batching.priority_levels, config.batching.default_priority) == (3, 2)
    assert (config.batching.max_waiting, config.batching.timeout_may_be_given) == (100, True)
    [warmup] = config.warmups
    assert (warmup.batch, warmup.count) == (8, 1)
    assert warmup.inputs == {"x": ("FP32", (4,), "random")}
    assert not config.warnings
    config.check(tiny_linear().model)


def test_an_empty_file_asks_for_nothing() -> None:
    config = config_from_text("", origin="config.pbtxt")
    assert config.max_batch is None
    assert config.batching is None
    assert config.versions.of([2, 1, 10]) == (10,)


def test_fields_that_are_unknown_or_not_followed_are_named_with_their_lines() -> None:
    text = (
        'name: "a"\n\nmax_batchsize: 8\ninput {\n  name: "x"\n  dimz: 3\n}\nsequence_batching { }\n'
    )
    error = _error(text)
    assert "config.pbtxt:3: unknown field 'max_batchsize'; did you mean 'max_batch_size'?" in error
    assert "config.pbtxt:6: unknown field 'input.dimz'; did you mean 'dims'?" in error
    assert "config.pbtxt:8: sequence_batching is not followed" in error
    config = config_from_text(text, origin="config.pbtxt", lenient=True)
    assert config.name == "a"
    assert [warning.split(":")[1] for warning in config.warnings] == ["3", "6", "8"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("instance_group { kind: KIND_GPU }", ":1: instance_group.kind: KIND_GPU is not followed"),
        ("instance_group { gpus: [0] }", ":1: instance_group.gpus is not followed"),
        (
            'input { name: "a" }\ninput { name: "b"\n is_shape_tensor: true }',
            ":3: input.is_shape_tensor: true is not followed",
        ),
        ("parameters { key: 'a' value { string_value: 'b' } }", ":1: parameters is not followed"),
        ('platform: "tensorrt_plan"', ":1: platform 'tensorrt_plan' is not offered"),
        ('\nbackend: "python"', ":2: backend 'python' is not offered"),
        ("max_batch_size: -1", ":1: max_batch_size must be at least 0"),
        ("max_batch_size: many", ":1:"),
        ("input { data_type: TYPE_FP8 }", ":1:"),
        ('name: "a"\nname "b"', ":2:"),
        ("input {", ":1:"),
    ],
)
def test_what_cannot_be_followed_is_an_error(text: str, expected: str) -> None:
    assert "config.pbtxt" + expected in _error(text)


def test_inside_of_an_unknown_field_nothing_more_is_said() -> None:
    assert _error("optimization { graph { level: 1 } }").count("config.pbtxt:") == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('input { name: "z" }', "input 'z' is not in the graph, which has x"),
        (
            'input { name: "x" data_type: TYPE_INT8 }',
            "config.pbtxt:1: input 'x' is INT8 here and FP32 in the graph",
        ),
        (
            'max_batch_size: 2 input { name: "x"\n dims: [ 5 ] }',
            "input 'x' is [-1, 5] here and [N,4] in the graph",
        ),
        ('output { name: "y" dims: [ -1, 3, 1 ] }', "output 'y' is [-1, 3, 1] here"),
        ('input { name: "x" optional: true }', "has no default in the graph"),
    ],
)
def test_contradictions_to_the_graph_are_named(text: str, expected: str) -> None:
    config = config_from_text(text, origin="config.pbtxt")
    with pytest.raises(ConfigurationError) as caught:
        config.check(tiny_linear().model)
    assert expected in str(caught.value)


def test_an_open_axis_may_be_narrowed() -> None:
    config_from_text('input { name: "x" dims: [2, 4] }', origin="").check(tiny_linear().model)


def test_all_inputs_are_described_or_none() -> None:
    config = config_from_text('input { name: "a" }', origin="config.pbtxt")
    with pytest.raises(ConfigurationError, match="the graph needs input 'b' too"):
        config.check(two_inputs().model)
    config_from_text("", origin="config.pbtxt").check(two_inputs().model)


def test_files_that_are_none_are_said_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read"):
        read_model_config(tmp_path / "config.pbtxt")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        read_model_config(tmp_path / "binary")
    (tmp_path / "large").write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(ConfigurationError, match="1 MiB"):
        read_model_config(tmp_path / "large")


def test_a_lenient_reader_warns(tmp_path: Path) -> None:
    path, heard = tmp_path / "config.pbtxt", []
    path.write_text("optimization { }")
    read_model_config(path, lenient=True, warn=heard.append)
    assert heard == [
        f"{path}:1: optimization is not followed: planning measures what is fastest; ignored"
    ]


@given(st.text(alphabet="ab{}[]<>:,;\"'# \n12\\.", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    text_fields(text)
    with suppress(ConfigurationError):
        config_from_text(text, origin="config.pbtxt")


@given(st.integers(0, len(_WHOLE)), st.integers(0, 12), st.sampled_from([*'{}[]:,<># "\n-9x', ""]))
def test_a_damaged_file_is_read_or_refused(at: int, count: int, put: str) -> None:
    text = _WHOLE[:at] + put + _WHOLE[at + count :]
    for lenient in (False, True):
        with suppress(ConfigurationError):
            config_from_text(text, origin="c", lenient=lenient).check(tiny_linear().model)


@given(st.text(max_size=40))
def test_any_text_after_a_field_is_read_or_refused(text: str) -> None:
    with suppress(ConfigurationError):
        config_from_text("max_batch_size: 1 " + text, origin="config.pbtxt", lenient=True)
