"""Check the external data of an ONNX file: inside the folder that it may be in, and complete.

A model file is untrusted: it must not make us read `/etc/passwd` as a weight. The check reads none
of the data; what reads it later opens the very file that was checked.
"""

from __future__ import annotations

import errno
import math
import mmap
import os
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import onnx
import onnx_ir as ir

from coinfer.errors import ModelError
from coinfer.model.data_file import DataFile

__all__ = ["check_external_data", "external_of", "from_file", "refuse_external"]


_LINKS = (errno.ELOOP, errno.ENOTDIR)

_REMEDY = (
    "replace the link by a copy of the file, or allow a folder that holds all of the model: "
    "load_model(..., data_root=FOLDER), --allow-data-in FOLDER"
)


def external_of(tensors: Iterable[onnx.TensorProto]) -> list[onnx.TensorProto]:
    """Return the tensors that keep their data in another file."""
    return [t for t in tensors if t.data_location == onnx.TensorProto.EXTERNAL]


def refuse_external(tensors: Iterable[onnx.TensorProto], what: str) -> None:
    """Refuse external data where only data in the file itself is supported.

    Raises:
        ModelError: one of the tensors keeps its data in another file.
    """
    for tensor in external_of(tensors):
        raise ModelError(
            f"{what}: external data of tensor {tensor.name!r} is not supported: only initializers "
            f"and constants may keep their data in another file; embed it"
        )


def check_external_data(
    tensors: Iterable[onnx.TensorProto], folder: Path | None, name: str, root: Path | None = None
) -> dict[str, DataFile]:
    """Check every tensor that keeps its data in another file.

    Args:
        tensors: From `external_of`, of all tensors of the parsed model file.
        folder: The folder of the model file, which locations start from; the data must lie inside.
            None for a model in memory, which can have no such tensors.
        name: What messages call the model.
        root: A folder without links in its path; links are followed then, and what they lead to
            must lie inside of it.

    Returns:
        The files, by the locations that name them.

    Raises:
        ModelError: names the tensor, its location, what is wrong, and the remedy.
    """
    files: dict[str, DataFile] = {}
    for tensor in tensors:
        if folder is None:
            raise ModelError(
                f"{name}: tensor {tensor.name!r} keeps its data in another file, which a model in "
                f"memory has no folder for; load the model from its file"
            )
        what = f"{name}: external data of tensor {tensor.name!r}"
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if location not in files:
            files[location] = _checked_file(location, folder, root, what)
        _check_extent(tensor, entries, files[location].size, f"{what} in {location!r}")
    return files


def from_file(tensor: ir.TensorProtocol, files: Mapping[str, DataFile]) -> ir.TensorProtocol:
    """Return a tensor that is read from the file that was checked, each time that it is needed.

    Args:
        tensor: As `onnx_ir` reads it; one whose data is in memory is returned as it is.
        files: From `check_external_data`.
    """
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor
    return ir.LazyTensor(
        partial(
            _read,
            files[str(tensor.location)],
            tensor.offset or 0,
            int(tensor.dtype),
            tuple(int(size) for size in tensor.shape.numpy()),
        ),
        dtype=tensor.dtype,
        shape=tensor.shape,
        name=tensor.name,
    )


def _read(file: DataFile, offset: int, kind: int, shape: tuple[int, ...]) -> ir.TensorProtocol:
    """Map a tensor into memory. What it holds is let go of with the array."""
    dtype = ir.DataType(kind)
    length = -(-math.prod(shape) * dtype.bitwidth // 8)
    stored: bytes | mmap.mmap = file.mapped() if length else b""
    if dtype.bitwidth < 8:  # numpy has no such numbers; `onnx_ir` unpacks them
        data = bytes(stored[offset : offset + length])
        proto = onnx.TensorProto(data_type=kind, dims=shape, raw_data=data)
        return ir.serde.deserialize_tensor(proto)
    numbers = np.dtype(dtype.numpy()).newbyteorder("<")
    if not length:
        return ir.Tensor(np.empty(shape, numbers), dtype=dtype)
    array = np.frombuffer(stored, numbers, math.prod(shape), offset)
    return ir.Tensor(array.reshape(shape), dtype=dtype)


def _checked_file(location: str, folder: Path, root: Path | None, what: str) -> DataFile:
    way = PurePosixPath(location).parts if os.sep == "/" else PureWindowsPath(location).parts
    if not way or "\0" in location:
        raise ModelError(f"{what} has no usable location; export the model again")
    _check_location(location, what)
    path = folder / location
    try:
        path.stat()
        real = path.resolve()
    except FileNotFoundError:
        raise ModelError(
            f"{what} is missing: there is no file {location!r} in {str(folder)!r}; copy it there, "
            f"next to the model file"
        ) from None
    except (OSError, RuntimeError) as error:
        raise ModelError(f"{what} in {location!r} cannot be read: {error}") from error
    inside = real.is_relative_to(root or folder.resolve())
    _check_links(path, folder, inside, root, f"{what} in {location!r}")
    if not path.is_file() or not os.access(path, os.R_OK):
        raise ModelError(f"{what} in {location!r} is not a readable file; check what lies there")
    try:
        if root is not None:
            folder, way = root, real.relative_to(root).parts
        file = DataFile.at(folder, way)
    except OSError as error:
        reason = "a link is on the way to it" if error.errno in _LINKS else error.strerror or error
        raise ModelError(
            f"{what} in {location!r} cannot be read: {reason}; put a plain file there"
        ) from error
    if file.links > 1:
        raise ModelError(
            f"{what} in {location!r} is a hard link, which may lead out of the model's folder; "
            f"replace it by a copy of the file"
        )
    return file


def _check_links(path: Path, folder: Path, inside: bool, root: Path | None, what: str) -> None:
    if root is not None:
        if not inside:
            raise ModelError(
                f"{what} leads out of {str(root)!r}, the folder that data is allowed in; allow a "
                f"folder that holds all of the model, if you trust the model with it"
            )
    elif not inside:
        raise ModelError(
            f"{what} is a link out of the model's folder {str(folder)!r}, which is not "
            f"followed for safety; {_REMEDY}"
        )
    elif path.is_symlink():
        raise ModelError(f"{what} is a link, which is not followed; {_REMEDY}")


def _check_location(location: str, what: str) -> None:
    """Refuse absolute paths and `..` as either family of systems would read them."""
    windows = PureWindowsPath(location)
    outside = (
        PurePosixPath(location).is_absolute() or windows.drive or windows.root
    ) or ".." in windows.parts
    if outside:
        raise ModelError(
            f"{what} is at {location!r}, outside the model's folder, which is not followed for "
            f"safety; put the file into the folder and export with a relative location"
        )


def _check_extent(
    tensor: onnx.TensorProto, entries: dict[str, str], file_bytes: int, what: str
) -> None:
    needed = _data_bytes(tensor, what)
    offset = _number(entries, "offset", 0, what)
    length = _number(entries, "length", needed, what)
    if length != needed:
        raise ModelError(
            f"{what} is {length} bytes long but its dtype and shape need {needed}; the files do "
            f"not belong together or are damaged, export the model again"
        )
    if offset + length > file_bytes:
        raise ModelError(
            f"{what} is short: it ends at byte {offset + length} but the file has {file_bytes}; "
            f"the file is truncated, copy it again"
        )


def _number(entries: dict[str, str], key: str, default: int, what: str) -> int:
    text = entries.get(key, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ModelError(f"{what} has the {key} {text!r}, not a number; export the model again")
    return int(text)


def _data_bytes(tensor: onnx.TensorProto, what: str) -> int:
    try:
        bits = ir.DataType(tensor.data_type).bitwidth
    except (ValueError, TypeError):
        raise ModelError(
            f"{what} has data type {tensor.data_type}, which cannot be stored externally; embed it"
        ) from None
    if any(dim < 0 for dim in tensor.dims):
        raise ModelError(f"{what} has a negative dimension; export the model again")
    return -(-math.prod(int(dim) for dim in tensor.dims) * bits // 8)
