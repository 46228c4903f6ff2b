"""Read ensembles from YAML files. Every error names the file, the line, the stage and the field."""

from __future__ import annotations

from pathlib import Path

from coinfer.documents.reading import read_text, validated
from coinfer.documents.yaml_document import YamlDocument
from coinfer.workload.ensemble import EnsembleDescription

__all__ = ["load_ensemble", "parse_ensemble"]


def load_ensemble(path: str | Path) -> EnsembleDescription:
    """Read the description of an ensemble; the modules of its functions are in its folder.

    Raises:
        ScenarioError: the file cannot be read, is not YAML or describes no ensemble.
    """
    path = Path(path)
    text = read_text(path, "ensemble file")
    return parse_ensemble(text, base=path.absolute().parent, origin=str(path))


def parse_ensemble(
    text: str, *, base: Path = Path(), origin: str = "ensemble"
) -> EnsembleDescription:
    """Read the description of an ensemble from YAML text.

    Args:
        text: The YAML document.
        base: Folder of the modules of its functions.
        origin: What errors call the file.

    Raises:
        ScenarioError: the text is not YAML or describes no ensemble; at most five problems are
            listed.
    """
    document = YamlDocument.parse(text, origin=origin, kind="an ensemble")
    return validated(EnsembleDescription, document, base).read_from(origin)
