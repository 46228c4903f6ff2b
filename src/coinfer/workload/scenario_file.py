"""Read scenarios from YAML files. Every error names the file, the line and the field."""

from __future__ import annotations

from pathlib import Path

from coinfer.documents.reading import read_text, validated
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
    if str(path).startswith("zoo:") or str(path).endswith(".onnx"):
        raise ScenarioError(
            f"{path}: that is a model, and no scenario; write one that says how often it is asked, "
            f"e.g. `models: {{net: {{source: '{path}'}}}}` and `arrivals: {{net: {{periodic: "
            "30/s}}`"
        )
    path = library.scenario_path(path)
    text = read_text(path, "scenario file")
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
    return validated(Scenario, YamlDocument.parse(text, origin=origin), base)
