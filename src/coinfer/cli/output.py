"""Write result files in one step; find out before a run that they cannot be written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from coinfer.errors import ConfigurationError

__all__ = ["check_writable", "write_json"]


def check_writable(*paths: Path | None) -> None:
    """Make the folders of result files.

    Raises:
        ConfigurationError: one of the files could not be written later.
    """
    for path in paths:
        if path is None:
            continue
        if path.is_dir():
            raise ConfigurationError(f"{path} is a folder; name a file in it")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch = path.with_name(path.name + ".part")
            scratch.touch()
            scratch.unlink()
        except OSError as error:
            raise ConfigurationError(f"cannot write {path}: {error.strerror}") from error


def write_json(path: Path, data: Any) -> None:
    """Write a value as JSON; the file is replaced in one step."""
    scratch = path.with_name(path.name + ".part")
    scratch.write_text(json.dumps(data, indent=2) + "\n")
    scratch.replace(path)
