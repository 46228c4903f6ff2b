"""The conformance suite finds each fault of a server, and none in an honest one."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest

from coinfer.errors import ConfigurationError
from coinfer.testing.oip import Result, Verdict, run_suite
from coinfer.testing.oip.__main__ import main
from oip.fake_http import http_server


def _failed(results: Iterable[Result]) -> dict[str, str]:
    return {each.case: each.reason for each in results if each.verdict is Verdict.FAILED}


def test_an_honest_server_passes() -> None:
    with http_server() as (url, _):
        results = list(run_suite(url))
    assert not _failed(results)
    passed = {each.case for each in results if each.verdict is Verdict.PASSED}
    assert len(passed) > 35
    assert {each.case for each in results} - passed == {
        case for case in (each.case for each in results) if case.startswith("grpc_")
    }


def test_a_server_without_binary_tensors_is_asked_in_json_only() -> None:
    with http_server("no binary tensors") as (url, _):
        results = list(run_suite(url))
    assert not _failed(results)
    skipped = {each.case for each in results if each.verdict is Verdict.NOT_OFFERED}
    assert {"binary_in_binary_out", "sizes_that_lie", "inputs_of_both_kinds"} <= skipped
    assert "ids_come_back" not in skipped


@pytest.mark.parametrize(
    ("fault", "case"),
    [
        ("no platform", "metadata_has_its_form"),
        ("config without an input", "configuration_agrees_with_metadata"),
        ("statistics stand still", "statistics_grow"),
        ("unknown models are bad requests", "unknown_model_is_not_found"),
        ("any datatype", "wrong_datatypes"),
        ("any shape", "wrong_shapes"),
        ("rows of a batch are mixed", "batches_are_rows"),
        ("all outputs always", "outputs_that_are_asked_for"),
        ("regions without an end", "regions_have_bounds"),
        ("errors are the server's", "broken_json"),
        ("errors are plain text", "wrong_names"),
        ("gzip that is none", "compressed_answers"),
        ("promises what is not there", "extensions_are_what_answers"),
        ("hides what is there", "extensions_are_what_answers"),
        ("bytes left over", "bodies_longer_or_shorter_than_said"),
        ("sizes are not checked", "sizes_that_lie"),
        ("shapes without the batch", "json_in_json_out"),
        ("always JSON", "binary_in_binary_out"),
        ("bytes the other way round", "json_in_json_out"),
        ("no ids", "ids_come_back"),
        ("header length of the answer", "binary_in_binary_out"),
    ],
)
def test_a_fault_is_found(fault: str, case: str) -> None:
    with http_server(fault) as (url, _):
        failed = _failed(run_suite(url, only=lambda name: name == case))
    assert list(failed) == [case]


def test_an_honest_server_of_grpc_passes() -> None:
    pytest.importorskip("grpc", reason="grpcio is not installed")
    from oip.fake_grpc import grpc_server

    with http_server() as (url, model), grpc_server(model) as address:
        results = list(run_suite(url, grpc=address, only=lambda name: name.startswith("grpc_")))
    assert {each.case: each.reason for each in results if each.reason} == {}


@pytest.mark.parametrize(
    ("fault", "case"),
    [
        ("answers what is not offered", "grpc_extensions_are_what_answers"),
        ("mixes contents", "grpc_raw_and_typed_are_not_mixed"),
        ("no ids over gRPC", "grpc_raw_contents"),
        ("raw and typed answers", "grpc_raw_contents"),
        ("streams end with an error", "grpc_streams"),
        ("not serving", "grpc_health_is_serving"),
        ("code UNKNOWN", "grpc_wrong_requests"),
        ("any shape", "grpc_wrong_requests"),
        ("statistics stand still", "grpc_configuration_and_statistics"),
    ],
)
def test_a_fault_over_grpc_is_found(fault: str, case: str) -> None:
    pytest.importorskip("grpc", reason="grpcio is not installed")
    from oip.fake_grpc import grpc_server

    with http_server(fault) as (url, model), grpc_server(model) as address:
        failed = _failed(run_suite(url, grpc=address, only=lambda name: name == case))
    assert list(failed) == [case]


def test_the_program_prints_what_failed_and_says_so_by_its_status(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with http_server("no ids") as (url, _):
        assert main([url, "--case", "ids_come", "--case", "server_is_live"]) == 1
        shown = capsys.readouterr().out
        assert "ids_come_back" in shown
        assert "1 passed, 1 failed, 1 not offered" in shown
        assert main([url, "--case", "server_is_live", "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert [each["verdict"] for each in said] == ["passed", "not offered"]


def test_what_is_no_server_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["http://127.0.0.1:9"]) == 2
    assert capsys.readouterr().err.startswith("oip: error: http://127.0.0.1:9 does not answer")
    with pytest.raises(ConfigurationError, match="is no address"):
        list(run_suite("ftp://127.0.0.1"))
