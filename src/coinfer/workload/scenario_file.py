"""Read scenarios from YAML files. Every error names the file, the line and the field."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from coinfer.documents.explain import explain
from coinfer.documents.fields import ParseContext
from coinfer.documents.yaml_document import YamlDocument
from coinfer.errors import ScenarioError
from coinfer.scenarios import library
from coinfer.workload.scenario import Scenario

__all__ = ["load_scenario", "parse_scenario"]


def load_scenario(path: str | Path) -> Scenario:
    """Read a scenario; relative paths in it start in its folder.

    Args:
        path: A file, or `lib:NAME` for one of the library.

    Raises:
        ScenarioError: the file cannot be read, is not YAML or is not a scenario.
        UnknownNameError: the library has no scenario of that name.
    """
    path = library.scenario_path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ScenarioError(f"{path}: no such scenario file; check the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: cannot be read as text: {error}") from error
    return parse_scenario(text, base=path.parent, origin=str(path))


def parse_scenario(text: str, *, base: Path = Path(), origin: str = "scenario") -> Scenario:
    """Read a scenario from YAML text.

    Args:
        text: The YAML document.
        base: Folder that relative paths start from.
        origin: What errors call the file.

    Raises:
        ScenarioError: the text is not YAML or not a scenario; at most five problems are listed.

    >>> scenario = parse_scenario('''
    ... models: {net: "zoo:lenet"}
    ... arrivals: {net: {poisson: 20/s}}
    ... ''')
    >>> scenario.processes["net"].rate_per_s
    20.0
    """
    document = YamlDocument.parse(text, origin=origin)
    context = ParseContext(base)
    try:
        return Scenario.model_validate(document.data, context=context)
    except ValidationError as error:
        raise ScenarioError(explain(error, document, context)) from error
