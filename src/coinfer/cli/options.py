"""The arguments and options that several verbs share, and what a scenario becomes under them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from coinfer.errors import ConfigurationError, ScenarioError
from coinfer.units import parse_seconds

if TYPE_CHECKING:
    from coinfer.workload.scenario import Scenario

__all__ = [
    "AllowDataOption",
    "Changes",
    "DimOption",
    "DurationOption",
    "ExplainOption",
    "InputsOption",
    "JsonOption",
    "MachineOption",
    "PlanOption",
    "PolicyOption",
    "PolicyOptionsOption",
    "ReportOption",
    "ScenarioArgument",
    "SeedOption",
    "policy_options",
    "sizes",
    "with_groups",
]

AllowDataOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--allow-data-in",
        help="Follow links from a model and to its weights that end in this folder.",
        metavar="FOLDER",
    ),
]
DimOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--dim",
        help="Size of an open dimension, e.g. width=320 or x:3=320; repeat it.",
        metavar="NAME=SIZE",
    ),
]
InputsOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--inputs",
        help="What to measure with: an .npz file or a folder of pictures.",
        metavar="FILE",
    ),
]
ScenarioArgument: TypeAlias = Annotated[
    Path, typer.Argument(help="A scenario file (YAML) or lib:NAME.", metavar="SCENARIO")
]
MachineOption: TypeAlias = Annotated[
    Path | None, typer.Option(help="A machine file instead of the scenario's.", metavar="FILE")
]
PlanOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--plan", help="A plan's folder; nothing is measured.", metavar="FOLDER"),
]
PolicyOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Policy instead of the scenario's; auto: the one that simulations find best for it.",
        metavar="NAME",
    ),
]
PolicyOptionsOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(help="Option of the policy, e.g. ageing_s=2; repeat it.", metavar="NAME=YAML"),
]
DurationOption: TypeAlias = Annotated[
    str | None,
    typer.Option(help="Measured time instead of the scenario's, e.g. 10s.", metavar="SECONDS"),
]
ExplainOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Say why each span of a request went where it went: its number, a model's name for "
        "the slowest of that model, or `slowest`.",
        metavar="REQUEST",
    ),
]
SeedOption: TypeAlias = Annotated[int | None, typer.Option(help="Seed instead of the scenario's.")]
JsonOption: TypeAlias = Annotated[
    Path | None, typer.Option(help="Write the result as JSON.", metavar="FILE")
]
ReportOption: TypeAlias = Annotated[
    Path | None, typer.Option(help="Write a report, one HTML page with charts.", metavar="FILE")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """The options that change a scenario, as a group for `with_groups`."""

    policy: PolicyOption = None
    policy_option: PolicyOptionsOption = None
    duration: DurationOption = None
    seed: SeedOption = None
    rate_factor: Annotated[
        float | None, typer.Option(help="Multiply all open-loop rates.", metavar="F")
    ] = None
    dim: DimOption = None
    allow_data_in: AllowDataOption = None

    def applied_to(self, file: Path) -> Scenario:
        """Load a scenario and apply what the command line overrides.

        Raises:
            ScenarioError: the file is wrong.
            ConfigurationError: an option is.
        """
        from coinfer.workload.scenario_file import load_scenario

        return load_scenario(file).with_options(
            policy=self.policy,
            policy_options=policy_options(self.policy_option),
            duration_s=None if self.duration is None else parse_seconds(self.duration),
            seed=self.seed,
            rate_factor=self.rate_factor,
        )


def with_groups(verb: Callable[..., None]) -> Callable[..., None]:
    """Let a verb take groups of options: dataclasses whose fields are options on the command line.

    Typer knows no groups. It sees their fields in place of them, as if the verb had them itself.
    """
    parameters: list[inspect.Parameter] = []
    groups: dict[str, Any] = {}
    for name, parameter in inspect.signature(verb, eval_str=True).parameters.items():
        if is_dataclass(parameter.annotation):
            groups[name] = parameter.annotation
            parameters += inspect.signature(groups[name], eval_str=True).parameters.values()
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(verb)
    def called(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{each.name: given.pop(each.name) for each in fields(group)})
        verb(**given)

    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return called


def sizes(dims: Iterable[str] | None) -> dict[str, int]:
    """Read sizes of open dimensions, if there are any.

    Raises:
        ConfigurationError: not of the form NAME=SIZE.

    >>> sizes(["width=320", "x:2=64"])
    {'width': 320, 'x:2': 64}
    """
    found = {}
    for text in dims or ():
        name, _, size = text.rpartition("=")
        if not name or not size.isdecimal() or int(size) < 1:
            raise ConfigurationError(
                f"--dim {text!r} is not a dimension; write NAME=SIZE with a size from 1, "
                f"e.g. sequence=128"
            )
        found[name] = int(size)
    return found


def policy_options(texts: Iterable[str] | None) -> dict[str, Any]:
    """Read options, if there are any; the value is YAML as in a scenario, also a list or a mapping.

    Raises:
        ConfigurationError: not of the form NAME=YAML.

    >>> policy_options(["ageing_s=2", "assignment={a: cpu0}"])
    {'ageing_s': 2, 'assignment': {'a': 'cpu0'}}
    """
    options: dict[str, Any] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise _malformed(text)
        try:
            options[name] = _parsed(value)
        except ScenarioError as error:
            raise _malformed(text, f": {error}") from error
    return options


def _parsed(value: str) -> Any:
    from coinfer.documents.yaml_document import YamlDocument

    return YamlDocument.parse(value, origin="value").data if value.strip() else None


def _malformed(text: str, why: str = "") -> ConfigurationError:
    return ConfigurationError(
        f"--policy-option {text!r} is not NAME=YAML{why}; write for example ageing_s=2 or "
        "'assignment={detector: cpu0}'"
    )
