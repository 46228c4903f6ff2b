"""Processor file: processors from a scenario, a machine, or a file with nothing but processors."""

from __future__ import annotations

from pathlib import Path

from coinfer.documents.fields import Section
from coinfer.documents.reading import read_text, validated
from coinfer.documents.yaml_document import YamlDocument
from coinfer.machine.machine_file import load_machine
from coinfer.machine.processor import Processor
from coinfer.planner.processors import choose_processors, find_processors
from coinfer.scenarios import library
from coinfer.workload.processor_spec import PrecisionSpec, Processors
from coinfer.workload.scenario_file import load_scenario

__all__ = ["load_processors"]


class ProcessorFile(Section):
    """A file with nothing but processors, written as in a scenario."""

    processors: Processors
    precision: PrecisionSpec = PrecisionSpec()


def load_processors(path: str | Path) -> tuple[Processor, ...]:
    """Read the processors that a file describes.

    Args:
        path: A scenario, a machine, or a file with the section `processors` of a scenario;
            `lib:NAME` for a scenario or a machine of the library.

    Raises:
        ScenarioError: the file cannot be read, is not YAML or describes none of these.
        UnknownNameError: the library has no such file, or a name that no found processor has.
        ConfigurationError: a core that this process may not use, or a name given twice.
    """
    if library.is_reference(path):
        name = str(path).partition(":")[2]
        of_machine = name in library.machine_names()
        path = library.machine_path(path) if of_machine else library.scenario_path(path)
    path = Path(path)
    text = read_text(path, "file of processors")
    document = YamlDocument.parse(text, origin=str(path), kind="processors")
    if isinstance(document.data, dict) and "times" in document.data:
        return load_machine(path).processors
    if isinstance(document.data, dict) and "models" in document.data:
        return choose_processors(load_scenario(path))
    file = validated(ProcessorFile, document, path.parent)
    return find_processors(file.processors, ("fp32", *file.precision.allow))
