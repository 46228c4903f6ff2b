"""Limits of documents: what is absurdly large, deep or tangled is refused in one line."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from coinfer.documents.raw import parse_json, read_bytes
from coinfer.documents.reading import read_text
from coinfer.documents.yaml_document import MOST_TEXT_BYTES, YamlDocument
from coinfer.errors import ConfigurationError, ScenarioError
from coinfer.machine.machine_file import load_machine
from coinfer.machine.profile import Profile
from coinfer.profiling.cache import ProfileCache
from coinfer.replay.event_log import read_log
from coinfer.workload.scenario_file import load_scenario, parse_scenario
from coinfer.workload.trace_file import read_trace

DEEP = "[" * 100_000 + "]" * 100_000

ALIASES = "a0: &a0 [1, 1]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)
)

MERGES = "a0: &a0 {k: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 30)
)


def refusal(text: str) -> str:
    with pytest.raises(ScenarioError) as caught:
        YamlDocument.parse(text, origin="s.yaml")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    return str(caught.value)


@pytest.mark.parametrize("text", [ALIASES, MERGES])
def test_aliases_count_as_often_as_they_are_used(text: str) -> None:
    assert "more than 1,000,000 values" in refusal(text)


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: [1, *a]}", "&a [{c: *a}]"])
def test_what_holds_itself_is_refused(text: str) -> None:
    assert refusal(text) == "s.yaml:1: what the alias stands for holds the alias"


def test_a_few_aliases_are_fine() -> None:
    document = YamlDocument.parse("a: &a [1, 2]\nb: *a\nc: [*a, *a]", origin="s.yaml")
    assert document.data == {"a": [1, 2], "b": [1, 2], "c": [[1, 2], [1, 2]]}


@pytest.mark.parametrize("number", ["9" * 400, "-" + "9" * 400, "0x" + "f" * 400, "9" * 5000])
def test_numbers_of_hundreds_of_digits_are_refused_where_they_stand(number: str) -> None:
    message = refusal(f"a: 1\nb: [0, {number}]")
    assert message == f"s.yaml:2: b[1]: a number has {len(number)} digits; at most 100 are read"


@pytest.mark.parametrize("number", ["9" * 400, "9" * 400 + "ms", "1e999", "9" * 400 + ".5"])
@pytest.mark.parametrize("field", ["deadline", "priority", "batch"])
def test_no_field_takes_such_a_number(number: str, field: str) -> None:
    text = f"models: {{m: {{source: m.onnx, {field}: {number}}}}}\narrivals: {{m: closed}}"
    with pytest.raises(ScenarioError):
        parse_scenario(text)


@pytest.mark.parametrize("number", ["1e308", "-1e101", "1e999", "1e-320", "-1e-101"])
def test_numbers_that_overflow_in_what_follows_are_refused_in_json(number: str) -> None:
    with pytest.raises(ValueError, match="below 1e-100 or above 1e\\+100"):
        parse_json(f'{{"share": {number}}}')


def test_other_numbers_of_json_are_read() -> None:
    assert parse_json("[0.0, -0.0, 1e100, -1e-100, 2.5, 7]") == [0, 0, 1e100, -1e-100, 2.5, 7]


def test_deep_documents_are_refused() -> None:
    assert refusal(DEEP) == "s.yaml: not valid YAML: it nests too deeply"


def test_long_texts_are_not_repeated_whole() -> None:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(f"seed: {'x' * 100_000}\nmodels: {{m: {{source: m.onnx}}}}")
    assert len(str(caught.value)) < 1000


def test_large_documents_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(b"#" * (MOST_TEXT_BYTES + 1))
    for load in (load_scenario, load_machine):
        with pytest.raises(ScenarioError, match=r"s\.yaml: .*more than 8 MiB, the most that is"):
            load(path)
    assert "more than 8 MiB" in refusal("#" * (MOST_TEXT_BYTES + 1))


@pytest.mark.skipif(not Path("/dev/zero").is_char_device(), reason="there is no /dev/zero")
def test_what_has_no_end_is_not_read_to_the_end() -> None:
    with pytest.raises(ScenarioError, match="the most that is read"):
        read_text(Path("/dev/zero"), "scenario file")
    with pytest.raises(OSError, match="the most that is read"):
        read_bytes(Path("/dev/zero"), 1000)


def test_the_ends_of_lines_are_those_of_any_system(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a\r\nb\rc\n")
    assert read_text(tmp_path / "a", "text") == "a\nb\nc\n"


@pytest.mark.parametrize("text", [DEEP, '{"a":' * 100_000, "[" + "9" * 400 + "]", "{", b"\xff", ""])
def test_json_of_others_is_a_value_or_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


@pytest.mark.parametrize("text", [DEEP, "9" * 400])
def test_files_of_json_are_refused_in_one_line(tmp_path: Path, text: str) -> None:
    from coinfer.cli.compare import _read

    path = tmp_path / "r.json"
    path.write_text(text)
    for load in (Profile.load, _read, lambda path: next(iter(read_log(path)))):
        with pytest.raises(ConfigurationError, match=r"r\.json") as caught:
            load(path)
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize("text", [DEEP, "9" * 400, "[" + "9" * 400 + "]"])
def test_a_damaged_cache_counts_as_not_measured(tmp_path: Path, text: str) -> None:
    cache = ProfileCache(tmp_path)
    path = cache.path({"a": 1})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    assert cache.get({"a": 1}, ()) is None


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("t.csv", "9" * 400),
        ("t.csv", "x" * 200_000),
        ("t.jsonl", '{"time_s": ' + "9" * 400 + "}"),
        ("t.jsonl", DEEP),
        ("t.jsonl", '{"time_s": "' + "x" * 100_000 + '"}'),
    ],
)
def test_rows_of_traces_are_refused_in_one_line(tmp_path: Path, name: str, row: str) -> None:
    (tmp_path / name).write_text(f"{row}\n")
    with pytest.raises(ScenarioError, match=rf"{name}:1: ") as caught:
        read_trace(tmp_path / name)
    assert len(str(caught.value)) < 500


def test_a_packed_log_without_end_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coinfer.replay.event_log._MOST_LINE", 1000)
    path = tmp_path / "r.jsonl.gz"
    path.write_bytes(gzip.compress(b'"' + b"x" * 10_000_000))
    with pytest.raises(ConfigurationError, match="a line has more than 1000 characters"):
        next(iter(read_log(path)))
