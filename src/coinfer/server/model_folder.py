"""Model folders: what lies in a model repository, `MODEL/VERSION/model.onnx`. Opens no model."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from coinfer.errors import ConfigurationError
from coinfer.server.model_config import ModelConfig, read_model_config
from coinfer.server.model_options import ModelOptions, read_model_options

__all__ = ["ModelFolder", "ModelVersion", "Stamp", "read_model_folder", "repository_folders"]

_VERSION = re.compile(r"[1-9][0-9]{0,17}")
_NAME = re.compile(r"[^/\\\x00-\x1f\x7f\ud800-\udfff]{1,200}")
"""Names of models. Bytes that are not UTF-8 are surrogates in Python, and no text of a protocol."""

Stamp = tuple[tuple[str, int, int], ...]
"""Of files: path, nanoseconds of the last change, bytes. It differs once one was changed."""


class ModelVersion(NamedTuple):
    """One version of a model.

    Attributes:
        version: Its number as a text.
        file: The ONNX file.
        stamp: What the file was like.
    """

    version: str
    file: Path
    stamp: Stamp


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """The folder of one model.

    Attributes:
        name: What clients call the model.
        path: The folder.
        versions: Those that are to be served, the oldest first.
        config: What `config.pbtxt` says; None: there is none.
        options: What `coinfer.yaml` says.
        stamp: What all of its files were like.
    """

    name: str
    path: Path
    versions: tuple[ModelVersion, ...]
    config: ModelConfig | None
    options: ModelOptions = field(default_factory=ModelOptions)
    stamp: Stamp = ()


def repository_folders(repositories: Sequence[Path]) -> dict[str, Path]:
    """Find the folders of models in repositories, by name. What begins with a dot is left out.

    Raises:
        ConfigurationError: a repository is no folder, is empty, or two have a model of one name.
    """
    found: dict[str, Path] = {}
    for repository in repositories:
        try:
            paths = sorted(path for path in repository.iterdir() if path.is_dir())
        except OSError as error:
            raise ConfigurationError(
                f"model repository {repository}: {error.strerror}; name a folder with "
                "MODEL/1/model.onnx in it"
            ) from error
        for path in paths:
            if path.name.startswith((".", "__")) or not _NAME.fullmatch(path.name):
                continue
            if path.name in found:
                raise ConfigurationError(
                    f"two models are named {path.name!r}: {found[path.name]} and {path}; rename one"
                )
            found[path.name] = path
        if not paths:
            raise ConfigurationError(
                f"model repository {repository} is empty; put models there as MODEL/1/model.onnx"
            )
    return found


def read_model_folder(
    path: Path, *, lenient: bool = False, warn: Callable[[str], None] = lambda _: None
) -> ModelFolder:
    """Read what the folder of a model has.

    Args:
        path: The folder, named as the model.
        lenient: Ignore what of `config.pbtxt` is not followed, with a warning.
        warn: Is told what was ignored.

    Raises:
        ConfigurationError: it has no version, or its configuration is wrong.
        ScenarioError: its `coinfer.yaml` is.
    """
    config_file, options_file = path / "config.pbtxt", path / "coinfer.yaml"
    config = None
    if config_file.exists():
        config = read_model_config(config_file, lenient=lenient, warn=warn)
        if config.name and config.name != path.name:
            raise ConfigurationError(
                f"{config_file}: name is {config.name!r}, and the folder is {path.name!r}; make "
                "them the same"
            )
    file_name = "model.onnx" if config is None else config.model_file
    if Path(file_name).name != file_name:
        raise ConfigurationError(
            f"{config_file}: default_model_filename {file_name!r} is no name of a file in the "
            "folder of a version"
        )
    numbers = [int(each.name) for each in path.iterdir() if _VERSION.fullmatch(each.name)]
    wanted = sorted(numbers)[-1:] if config is None else config.versions.of(sorted(numbers))
    versions = [
        ModelVersion(str(number), file, _stamp(file))
        for number in wanted
        if (file := path / str(number) / file_name).is_file()
    ]
    if not versions:
        shown = wanted[-1] if wanted else 1
        raise ConfigurationError(
            f"model {path.name!r} has no version to serve; put its file at "
            f"{path / str(shown) / file_name}"
        )
    options = read_model_options(options_file)
    stamp = _stamp(config_file, options_file, *(each.file for each in versions))
    return ModelFolder(
        name=path.name,
        path=path,
        versions=tuple(versions),
        config=config,
        options=options,
        stamp=stamp,
    )


def _stamp(*files: Path) -> Stamp:
    found = []
    for file in files:
        try:
            state = file.stat()
        except OSError:
            continue
        found.append((str(file), state.st_mtime_ns, state.st_size))
    return tuple(found)
