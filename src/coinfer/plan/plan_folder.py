"""Plan folder: save a plan as a folder and read it again. Errors name file, line and field.

    plan.yaml            what runs where, and why: for people to read, compare and edit
    machine.json         the machine that it was made for
    profiles/MODEL.json  what was measured of each model
    graphs/MODEL.onnx    graphs that no file of the user's holds; of fused variants too
    ...@compressed...    the same of the variants of a model beside the original

The same plan gives the same bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from coinfer.documents import raw
from coinfer.documents.raw import parse_json
from coinfer.documents.writing import replace_folder
from coinfer.documents.yaml_document import MOST_TEXT_BYTES, YamlDocument
from coinfer.errors import ConfigurationError, ScenarioError
from coinfer.machine.machine_json import decode_machine, encode_machine
from coinfer.machine.profile import Profile
from coinfer.plan.measured_run import MeasuredRun, decode_runs, encode_runs, profile_of, runs_of
from coinfer.plan.plan import Plan
from coinfer.plan.plan_destination import MACHINE, PLAN, check_can_save, check_model_names
from coinfer.plan.plan_sections import (
    MachineSection,
    ProfileSection,
    read_plan_section,
)
from coinfer.plan.plan_text import plan_text
from coinfer.plan.variant import GraphFile, Kind, Variant, variant_name

__all__ = ["SavedPlan", "graph_bytes", "load_plan", "read_bytes", "save_plan"]

T = TypeVar("T")

_MOST_BYTES = 2**31
"""Of a file in the folder: graphs are as large as a message of protobuf may be."""


class SavedPlan(NamedTuple):
    """A plan as it was read.

    Attributes:
        plan: The plan; its models' sources are paths that can be opened from here.
        folder: Where it is.
        runs: By variant all that was measured, also what is no span of the cut as it is now.
        text: The document, to say where something stands.
        data_root: A folder in which links of models' files may end, as for `load_model`.
    """

    plan: Plan
    folder: Path
    runs: Mapping[str, list[MeasuredRun]]
    text: YamlDocument
    data_root: Path | None = None

    def where(self, *loc: str | int) -> str:
        """Return `FILE:LINE` of a field."""
        return f"{self.text.origin}:{self.text.line_of(loc)}"


def save_plan(plan: Plan, folder: str | Path, graphs: Mapping[str, bytes] | None = None) -> None:
    """Write a plan into a folder, all at once; an older plan there is replaced.

    Args:
        plan: The plan.
        folder: Where to; made if it is not there.
        graphs: Serialised graphs of models that have no source, by name.

    Raises:
        ConfigurationError: the folder holds something else or cannot be written, a model has
            neither a source nor a graph, or its name cannot be kept.
    """
    folder = Path(folder)
    check_can_save(folder)
    check_model_names([*plan.models, *plan.fused])
    plan, files = _with_graphs(plan, graphs or {})
    _check_sources(plan)
    plan, fused = _with_fused(plan)
    files |= fused
    variants = {
        variant_name(name, kind): variant
        for name, model in plan.models.items()
        for kind, variant in model.variants.items()
    }
    variants |= {name: Variant() for name in plan.fused}
    files |= {
        f"profiles/{name}.json": _json_bytes(encode_runs(runs_of(plan.measured, name, variant)))
        for name, variant in variants.items()
    }
    files[MACHINE] = _json_bytes(encode_machine(plan.machine))
    named = {
        "machine": _named(MACHINE, files),
        "profiles": {name: _named(f"profiles/{name}.json", files) for name in variants},
        "sources": {n: _portable(m.source, folder) for n, m in plan.models.items()},
    }
    files[PLAN] = _checked_text(plan_text(plan, named))
    try:
        replace_folder(folder, files)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigurationError(f"cannot write {folder}: {reason}; name another folder") from error


def _with_graphs(plan: Plan, graphs: Mapping[str, bytes]) -> tuple[Plan, dict[str, bytes]]:
    """Let models refer to their graphs; return the files of these as well."""
    files = {}
    for name, data in graphs.items():
        path = f"graphs/{name}.onnx"
        files[path] = data
        graph = GraphFile(path, hashlib.sha256(data).hexdigest())
        original = dataclasses.replace(plan.models[name].original, graph=graph)
        plan = plan.with_variant(name, original)
    for name, model in plan.models.items():
        for kind, variant in model.variants.items():
            if kind is not Kind.ORIGINAL and variant.graph is not None:
                path = f"graphs/{variant_name(name, kind)}.onnx"
                files[path] = graph_bytes(variant.graph)
                graph = variant.graph._replace(path=path)
                plan = plan.with_variant(name, dataclasses.replace(variant, graph=graph))
    return plan, files


def graph_bytes(graph: GraphFile, folder: Path | None = None) -> bytes:
    """Read a graph that was made, or given, beside a model.

    Args:
        graph: Its file.
        folder: The folder of the plan; None: the plan was not saved yet.

    Raises:
        ConfigurationError: it is not there any more, or another one.
    """
    path = (folder or Path()) / graph.path
    data = read_bytes(path.parent, path.name) if folder is None else read_bytes(folder, graph.path)
    if hashlib.sha256(data).hexdigest() != graph.sha256:
        raise ConfigurationError(
            f"{path}: is not the graph that the plan was made with; restore it, or make the plan "
            "anew"
        )
    return data


def _with_fused(plan: Plan) -> tuple[Plan, dict[str, bytes]]:
    """Let fused variants refer to copies of their graphs; return the files of these as well."""
    files = {}
    for name, fused in plan.fused.items():
        path = f"graphs/{name}.onnx"
        source = Path(fused.graph.path)
        try:
            data = raw.read_bytes(source, _MOST_BYTES)
        except OSError as error:
            raise ConfigurationError(
                f"the graph of {name}, {source}, is gone ({error.strerror}); make the plan anew"
            ) from error
        if hashlib.sha256(data).hexdigest() != fused.graph.sha256:
            raise ConfigurationError(
                f"the graph of {name}, {source}, was changed; make the plan anew"
            )
        files[path] = data
        plan = plan.with_fused(
            name, dataclasses.replace(fused, graph=GraphFile(path, fused.graph.sha256))
        )
    return plan, files


def _check_sources(plan: Plan) -> None:
    for name, model in plan.models.items():
        if plan.machine.identity and not (model.source or model.original.graph):
            raise ConfigurationError(
                f"model {name!r} was made in memory, so the plan cannot say where it comes from; "
                "save it to a file and plan that, or give its graph"
            )


def _checked_text(text: str) -> bytes:
    """Read what is to be saved: a name that cannot be read is better found now."""
    try:
        read_plan_section(YamlDocument.parse(text, origin=PLAN, kind="a plan"))
        return text.encode()
    except (ScenarioError, UnicodeEncodeError) as error:
        raise ConfigurationError(
            f"the plan cannot be saved, since it could not be read again: {error}; rename that"
        ) from error


def load_plan(folder: str | Path) -> SavedPlan:
    """Read a plan from its folder.

    Raises:
        ScenarioError: `plan.yaml` cannot be read, is of a newer format, or is wrong.
        ConfigurationError: a file beside it is missing, damaged or another one.
    """
    folder = Path(folder)
    path = folder / PLAN
    try:
        text = raw.read_bytes(path, MOST_TEXT_BYTES).decode()
    except (FileNotFoundError, NotADirectoryError) as error:
        if folder.is_file():
            raise ScenarioError(f"{folder}: is a file; a plan is a folder with {PLAN}") from error
        raise ScenarioError(
            f"{folder}: there is no plan here; make one with `coinfer plan SCENARIO -o {folder}`"
        ) from error
    except IsADirectoryError as error:
        raise ScenarioError(
            f"{path}: is a folder, not a file; name the plan's folder, or make the plan anew"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: cannot be read as text: {error}") from error
    document = YamlDocument.parse(text, origin=str(path), kind="a plan")
    section = read_plan_section(document)
    machine = _read(folder, section.machine, decode_machine)
    plan = _located(section.plan(machine, folder.resolve().parent, document), folder)
    profiles = {
        variant_name(name, kind): model.profile if kind is Kind.ORIGINAL else variant.profile
        for name, model in section.models.items()
        for kind, variant in model.variants.items()
    }
    named = {name: each for name, each in profiles.items() if each is not None}
    named |= {name: fused.profile for name, fused in section.fused.items()}
    runs = {name: _read(folder, each, decode_runs) for name, each in named.items()}
    _check_processors(runs, {p.name for p in machine.processors}, folder, named)
    saved = SavedPlan(_with_times(plan, runs), folder, runs, document)
    _check_fused_times(saved)
    return saved


def _located(plan: Plan, folder: Path) -> Plan:
    """Say where the graphs of fused variants are, wherever the plan is saved next."""
    for name, fused in plan.fused.items():
        graph = fused.graph._replace(path=os.fspath(folder.resolve() / fused.graph.path))
        plan = plan.with_fused(name, dataclasses.replace(fused, graph=graph))
    return plan


def _check_fused_times(saved: SavedPlan) -> None:
    for name, fused in saved.plan.fused.items():
        timed = {key.processor for key, _ in saved.plan.measured.restricted([name])}
        for processor in fused.processors:
            if processor not in timed:
                raise ConfigurationError(
                    f"{saved.where('fused', name, 'processors')}: {name} was not measured on "
                    f"{processor}; take that out, or make the plan anew"
                )


def _with_times(plan: Plan, runs: Mapping[str, list[MeasuredRun]]) -> Plan:
    profile = Profile()
    for model, each in plan.models.items():
        for kind, variant in each.variants.items():
            name = variant_name(model, kind)
            profile = profile.merged(profile_of(runs[name], name, variant))
    for name in plan.fused:
        profile = profile.merged(profile_of(runs[name], name, Variant()))
    return plan.with_profile(profile)


def _read(folder: Path, named: MachineSection | ProfileSection, decode: Callable[[Any], T]) -> T:
    data = read_bytes(folder, named.file)
    if _fingerprint(data) != named.fingerprint:
        raise ConfigurationError(
            f"{folder / named.file}: is not the file that the plan was made with; restore it, or "
            "make the plan anew"
        )
    try:
        return decode(parse_json(data))
    except (ConfigurationError, ValueError) as error:
        raise ConfigurationError(f"{folder / named.file}: {error}") from error


def _check_processors(
    runs: Mapping[str, list[MeasuredRun]],
    known: set[str],
    folder: Path,
    profiles: Mapping[str, ProfileSection],
) -> None:
    for name, rows in runs.items():
        if foreign := sorted({run.processor for run in rows} - known):
            raise ConfigurationError(
                f"{folder / profiles[name].file}: has times of processor "
                f"{foreign[0]!r}, which the machine does not have; make the plan anew"
            )


def _named(path: str, files: Mapping[str, bytes]) -> dict[str, str]:
    return {"file": path, "fingerprint": _fingerprint(files[path])}


def read_bytes(folder: Path, name: str) -> bytes:
    """Read a file of the folder, and of no other."""
    path = folder / name
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ConfigurationError(f"{path}: is outside of the plan's folder; copy it into that")
        return raw.read_bytes(path, _MOST_BYTES)
    except (OSError, UnicodeError) as error:  # also where no file can have such a name
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(
            f"{path}: {reason}; restore the file, or make the plan anew"
        ) from error


def _portable(source: str, folder: Path) -> str:
    """Write a source relative to the folder's parent where it is below that."""
    if not source or source.startswith("zoo:"):
        return source
    # A link stays one: the data of a model lies beside it, by name, and not where it leads to.
    path, base = Path(source).parent.resolve() / Path(source).name, folder.resolve().parent
    return os.fspath(path.relative_to(base)) if path.is_relative_to(base) else os.fspath(path)


def _json_bytes(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def _fingerprint(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
