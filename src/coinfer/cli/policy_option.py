"""`--policy-option NAME=YAML`: options of a policy on the command line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from coinfer.errors import ConfigurationError, ScenarioError

__all__ = ["policy_options"]


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
