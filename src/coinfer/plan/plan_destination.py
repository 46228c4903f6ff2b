"""Plan destination: whether a plan can be saved in a folder, under the names that it has.

Asked before anything is measured. Writes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from coinfer.documents.fields import is_name
from coinfer.errors import ConfigurationError

__all__ = ["MACHINE", "PLAN", "check_can_save", "check_model_names"]

PLAN, MACHINE = "plan.yaml", "machine.json"

_FOLDERS = {"profiles": ".json", "graphs": ".onnx"}
"""What the folders in it hold."""


def check_can_save(folder: str | Path) -> None:
    """Tell whether a plan can be saved in a folder, before one is made.

    Raises:
        ConfigurationError: it is none, holds something else or cannot be written.
    """
    if not str(folder) or "\0" in str(folder):
        raise ConfigurationError(f"{str(folder)!r} is no folder; name one for the plan")
    problem, settled = None, False
    while not settled:  # another one that saves just now may replace it meanwhile
        before = _state(folder)
        problem = _problem(Path(folder))
        settled = problem is None or _state(folder) == before
    if problem is not None:
        raise ConfigurationError(problem)


def _state(folder: str | Path) -> tuple[int, int] | None:
    try:
        status = Path(folder).stat()
    except OSError:
        return None
    return status.st_ino, status.st_ctime_ns


def _problem(folder: Path) -> str | None:
    """Say why no plan can be saved in a folder."""
    try:
        return _problem_of_place(folder)
    except OSError as error:
        return f"{folder}: {error.strerror}; name another folder for the plan"


def _problem_of_place(folder: Path) -> str | None:
    if folder.is_symlink() and not folder.exists():
        return f"{folder} is a link to nothing; name another folder for the plan"
    if folder.is_dir():
        return _foreign(folder)
    if folder.exists():
        return f"{folder} is a file; name a folder for the plan"
    there = next(each for each in folder.absolute().parents if os.path.lexists(each))
    if not there.is_dir():
        return f"{there} is no folder, so {folder} cannot be made; name another folder"
    if not os.access(there, os.W_OK | os.X_OK):
        return f"{there} may not be written; name another folder for the plan"
    return None


def _foreign(folder: Path) -> str | None:
    """Say what stands against writing into a folder that is there."""
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"{folder} may not be written; name another folder for the plan"
    if any(folder.iterdir()) and not (folder / PLAN).is_file():
        return f"{folder} is not empty and holds no plan; name another folder"
    for path in sorted(folder.rglob("*")):
        if not _is_ours(path, path.relative_to(folder).parts):
            return f"{path} is no part of a plan and would be lost; move it or name another folder"
    return None


def _is_ours(path: Path, parts: tuple[str, ...]) -> bool:
    match parts:
        case [name] if name in _FOLDERS:
            return path.is_dir() and not path.is_symlink()
        case [name]:
            return name in (PLAN, MACHINE) and path.is_file()
        case [within, _]:
            return path.suffix == _FOLDERS.get(within) and path.is_file()
    return False


def check_model_names(names: Collection[str]) -> None:
    """Refuse names of models that a plan cannot keep, before it is made.

    Raises:
        ConfigurationError: there are none, or one is no name of a file.
    """
    if not names:
        raise ConfigurationError("the plan has no models; plan one before it is saved")
    for name in names:
        if not is_name(name):
            raise ConfigurationError(
                f"model name {name!r} cannot be kept in a plan; use only A-Z, a-z, 0-9 and _.+-, "
                "and begin with a letter or digit"
            )
