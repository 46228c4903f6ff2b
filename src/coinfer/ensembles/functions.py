"""Functions: the Python functions of an ensemble, from modules beside its file and nowhere else.

A module is one file, and imports nothing that lies beside it. It runs with all rights of the
process, so who describes an ensemble must be who runs it: never a client.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from coinfer.documents.digest import digest_of
from coinfer.errors import ConfigurationError

__all__ = ["Functions"]


class Functions:
    """Finds functions by `MODULE:FUNCTION`. Each module is executed once.

    Args:
        folder: Where the modules are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._modules: dict[str, ModuleType] = {}

    def find(self, call: str, arguments: Iterable[str]) -> Callable[..., Any]:
        """Return a function.

        Args:
            call: `MODULE:FUNCTION`.
            arguments: Names of what it is to be called with.

        Raises:
            ConfigurationError: there is none, or it does not take these arguments.
        """
        module_name, _, name = call.partition(":")
        module = self._modules.get(module_name)
        if module is None:
            module = self._modules[module_name] = _loaded(self._folder / f"{module_name}.py")
        found = getattr(module, name, None)
        if not callable(found):
            own = sorted(
                each
                for each, value in vars(module).items()
                if inspect.isfunction(value) and value.__module__ == module.__name__
            )
            raise ConfigurationError(
                f"{module_name}.py has no function {name!r}; it has {', '.join(own) or 'none'}"
            )
        function: Callable[..., Any] = found
        _check_arguments(function, call, list(arguments))
        return function


def _loaded(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigurationError(
            f"there is no {path.name} in {path.parent}; modules of an ensemble lie beside its file"
        )
    # Under a name of its own: what it is called elsewhere, or another one of that name, is left be.
    name = f"coinfer_ensemble_{path.stem}_{digest_of({'path': str(path.absolute())})}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"{path} cannot be read as a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigurationError(
            f"{path} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    return module


def _check_arguments(function: Callable[..., Any], call: str, arguments: list[str]) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some of those in C have none
        return
    try:
        signature.bind(**dict.fromkeys(arguments))
    except TypeError as error:
        raise ConfigurationError(
            f"{call} is called with {', '.join(arguments)}, but takes {signature}: {error}"
        ) from None
