"""CIFAR-10: pictures and classes from the folder that the data set's authors distribute.

The files are pickles (Krizhevsky 2009). Of these only what arrays are made of is loaded; anything
else is refused, so that no file can run code.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from coinfer.errors import InputError

__all__ = ["Cifar10", "read_cifar10"]

FOLDER = "cifar-10-batches-py"
_TRAINING = tuple(f"data_batch_{number}" for number in range(1, 6))
_TEST = "test_batch"
_VALUES = 3 * 32 * 32
_OLD, _NEW = "numpy.core.", "numpy._core."
"""How numpy called a package in the days of these files, and calls it now."""

_ALLOWED = {
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class Cifar10(NamedTuple):
    """The data set.

    Attributes:
        images: (samples, 3, 32, 32), uint8, red, green and blue.
        classes: (samples), int64, 0 to 9.
        test_images: As `images`.
        test_classes: As `classes`.
    """

    images: npt.NDArray[np.uint8]
    classes: npt.NDArray[np.int64]
    test_images: npt.NDArray[np.uint8]
    test_classes: npt.NDArray[np.int64]


def read_cifar10(folder: str | Path) -> Cifar10:
    """Read the folder `cifar-10-batches-py`, or the one in which it is.

    Raises:
        InputError: a file is missing, or is not what it should be.
    """
    root = Path(folder)
    root = root / FOLDER if (root / FOLDER).is_dir() else root
    batches = [_read(root / name) for name in _TRAINING]
    test = _read(root / _TEST)
    return Cifar10(
        np.concatenate([images for images, _ in batches]),
        np.concatenate([classes for _, classes in batches]),
        *test,
    )


class _ArraysOnly(pickle.Unpickler):
    """Makes arrays, texts, numbers, lists and dicts, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what arrays are made with.

        Raises:
            UnpicklingError: it is something else.
        """
        module = _NEW + module.removeprefix(_OLD) if module.startswith(_OLD) else module
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def _read(path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    try:
        with path.open("rb") as file:
            found = _ArraysOnly(file, encoding="bytes").load()
    except FileNotFoundError as error:
        raise InputError(
            f"there is no {path}; give the folder {FOLDER} with {', '.join(_TRAINING)} and {_TEST}"
        ) from error
    except Exception as error:  # a damaged pickle raises anything
        raise InputError(f"{path} is no batch of CIFAR-10: {error}") from error
    data, labels = _entry(found, b"data"), _entry(found, b"labels")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (_VALUES,):
        raise InputError(f"{path} is no batch of CIFAR-10: its data is not (n, {_VALUES}) of uint8")
    is_right = (
        isinstance(labels, list)
        and len(labels) == len(data)
        and all(type(each) is int and 0 <= each < 10 for each in labels)
    )
    if not is_right:
        raise InputError(f"{path} is no batch of CIFAR-10: its labels are not one of 0 to 9 each")
    return data.reshape(-1, 3, 32, 32), np.asarray(labels, np.int64)


def _entry(found: Any, name: bytes) -> Any:
    if not isinstance(found, dict):
        return None
    return found.get(name, found.get(name.decode()))
