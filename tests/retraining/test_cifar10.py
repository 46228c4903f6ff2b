"""CIFAR-10 in its folder layout: read, and nothing in it is run."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coinfer.errors import InputError
from coinfer.retraining import read_cifar10

NAMES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


def write(folder: Path) -> Path:
    """A folder like the original's, of three pictures a file; keys and names of numpy as there."""
    root = folder / "cifar-10-batches-py"
    root.mkdir()
    for at, name in enumerate(NAMES):
        data = np.random.default_rng(at).integers(0, 256, (3, 3072), dtype=np.uint8)
        batch = {b"batch_label": name.encode(), b"labels": [at, 9, 0], b"data": data}
        written = pickle.dumps(batch, protocol=2)
        assert b"cnumpy._core.multiarray" in written
        (root / name).write_bytes(written.replace(b"cnumpy._core.", b"cnumpy.core."))
    return root


def test_the_standard_folder_is_read(tmp_path: Path) -> None:
    root = write(tmp_path)
    found = read_cifar10(tmp_path)
    assert found.images.shape == (15, 3, 32, 32)
    assert found.classes.tolist() == [0, 9, 0, 1, 9, 0, 2, 9, 0, 3, 9, 0, 4, 9, 0]
    assert found.test_classes.tolist() == [5, 9, 0]
    first = np.random.default_rng(0).integers(0, 256, (3, 3072), dtype=np.uint8)
    assert found.images[0, 1, 0, 2] == first[0, 1024 + 2], "channels, rows, columns"
    again = read_cifar10(root)
    assert np.array_equal(again.test_images, found.test_images)


class _Dangerous:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.mkdir, (self.path,))


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    root = write(tmp_path)
    trap = tmp_path / "trap"
    (root / "data_batch_3").write_bytes(pickle.dumps({b"data": _Dangerous(trap)}))
    with pytest.raises(InputError, match=r"data_batch_3 is no batch of CIFAR-10: it asks for"):
        read_cifar10(tmp_path)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ({b"labels": [1], b"data": np.zeros((1, 3071), np.uint8)}, "its data is not"),
        ({b"labels": [1], b"data": np.zeros((1, 3072))}, "its data is not"),
        ({b"labels": [10], b"data": np.zeros((1, 3072), np.uint8)}, "its labels are not"),
        ({b"labels": [1, 2], b"data": np.zeros((1, 3072), np.uint8)}, "its labels are not"),
        ({b"fine_labels": [1], b"data": np.zeros((1, 3072), np.uint8)}, "its labels are not"),
        ([], "its data is not"),
    ],
)
def test_files_that_are_something_else_are_refused(tmp_path: Path, batch: Any, said: str) -> None:
    root = write(tmp_path)
    (root / "test_batch").write_bytes(pickle.dumps(batch, protocol=2))
    with pytest.raises(InputError, match=said):
        read_cifar10(tmp_path)


def test_files_that_are_missing_or_cut_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path)
    whole = (root / "data_batch_5").read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        (root / "data_batch_5").write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"data_batch_5 is no batch"):
            read_cifar10(tmp_path)
    (root / "data_batch_5").unlink()
    with pytest.raises(InputError, match=r"there is no .*data_batch_5; give the folder"):
        read_cifar10(tmp_path)
