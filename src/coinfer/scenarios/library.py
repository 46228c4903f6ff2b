"""Where the files of the library are. `lib:NAME` stands for one wherever a file is named."""

from __future__ import annotations

from pathlib import Path

from coinfer.errors import UnknownNameError

__all__ = ["is_reference", "machine_names", "machine_path", "scenario_names", "scenario_path"]

_PREFIX = "lib:"
_FOLDER = Path(__file__).parent
_MACHINES = _FOLDER / "machines"


def is_reference(path: str | Path) -> bool:
    """Tell whether a path means a file of the library.

    >>> is_reference("lib:disb-a"), is_reference("disb-a.yaml")
    (True, False)
    """
    return str(path).startswith(_PREFIX)


def scenario_names() -> tuple[str, ...]:
    """List the scenarios by name, without `lib:`."""
    return _names(_FOLDER)


def machine_names() -> tuple[str, ...]:
    """List the machines by name, without `lib:`."""
    return _names(_MACHINES)


def scenario_path(path: str | Path) -> Path:
    """Return the file of a scenario; any other path is returned as it is.

    Raises:
        UnknownNameError: the library has no scenario of that name.

    >>> scenario_path("lib:disb-a").name
    'disb-a.yaml'
    """
    hint = "See them with `coinfer scenarios list`."
    return _find(path, _FOLDER, "scenario of the library", hint)


def machine_path(path: str | Path) -> Path:
    """Return the file of a machine; any other path is returned as it is.

    Raises:
        UnknownNameError: the library has no machine of that name.
    """
    return _find(path, _MACHINES, "machine of the library", "")


def _names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in folder.glob("*.yaml")))


def _find(path: str | Path, folder: Path, kind: str, hint: str) -> Path:
    if not is_reference(path):
        return Path(path)
    name = str(path).removeprefix(_PREFIX)
    known = _names(folder)
    if name not in known:
        raise UnknownNameError.of(kind, name, known, hint=hint)
    return folder / f"{name}.yaml"
