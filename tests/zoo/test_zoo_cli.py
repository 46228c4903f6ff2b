"""`coinfer zoo` lists and writes networks, and refuses clearly."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from coinfer import zoo
from coinfer.cli.zoo import zoo_app
from coinfer.errors import ConfigurationError, UnknownNameError


def invoke(*arguments: str):
    return CliRunner().invoke(zoo_app, arguments)


def test_list_shows_every_network_with_its_parameters() -> None:
    result = invoke("list")
    assert result.exit_code == 0
    for name in zoo.names():
        assert name in result.output
        assert f"{zoo.spec(name).parameters:,}" in result.output


def test_export_writes_the_named_networks_once(tmp_path: Path) -> None:
    result = invoke("export", "lenet", "tiny_mlp", "lenet", "-o", str(tmp_path), "--seed", "4")
    assert result.exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"lenet.onnx", "tiny_mlp.onnx"}
    assert result.output.count("lenet.onnx") == 1


def test_export_refuses_an_unknown_name_before_it_writes(tmp_path: Path) -> None:
    result = invoke("export", "lenet", "lenett", "-o", str(tmp_path / "new"))
    assert isinstance(result.exception, UnknownNameError)
    assert not (tmp_path / "new").exists()


def test_export_names_the_directory_that_it_cannot_write(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    result = invoke("export", "tiny_mlp", "-o", str(file))
    assert isinstance(result.exception, ConfigurationError)
    assert str(file) in str(result.exception)


@pytest.mark.parametrize("arguments", [["export", "lenet"], ["export", "-o", "x"]])
def test_export_asks_for_what_is_missing(arguments: list[str]) -> None:
    assert invoke(*arguments).exit_code == 2
