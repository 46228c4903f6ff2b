"""`--policy-option NAME=YAML`: options of a policy on the command line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from coinfer.errors import ConfigurationError

__all__ = ["policy_options"]


def policy_options(texts: Iterable[str]) -> dict[str, Any]:
    """Read options; the value is YAML, so lists and mappings can be given.

    Raises:
        ConfigurationError: not of the form NAME=YAML.

    >>> policy_options(["ageing_s=2", "assignment={a: cpu0}"])
    {'ageing_s': 2, 'assignment': {'a': 'cpu0'}}
    """
    import yaml

    options: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError:
            equals = ""
        if not name or not equals:
            raise ConfigurationError(
                f"--policy-option {text!r} is not NAME=YAML; write for example ageing_s=2 or "
                "'assignment={detector: cpu0}'"
            )
        options[name] = parsed
    return options
