"""Load a model from an ONNX file. An error says in one sentence what is wrong and how to mend it.

The checks run from cheap to dear, and from what a person can mend at a glance (no such file) to
what only the exporter can (an invalid graph). The file is untrusted.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from coinfer.errors import ModelError
from coinfer.model.checked_file import Checked, recall, remember
from coinfer.model.content import PROTOBUF_LIMIT_BYTES, Content, Encoded, FileState, Origin
from coinfer.model.data_file import opened
from coinfer.model.model import Model, made_of
from coinfer.units import format_bytes

if TYPE_CHECKING:
    import onnx

    from coinfer.model.tensor_walk import Found

__all__ = ["load_model", "model_from_bytes"]

_OTHER_FORMATS = (
    (b"version https://git-lfs", 0, "a Git LFS pointer", "run `git lfs pull`"),
    (b"PK\x03\x04", 0, "a zip archive, perhaps a PyTorch checkpoint", "export it to ONNX"),
    (b"\x80\x02", 0, "a Python pickle, perhaps a PyTorch checkpoint", "export it to ONNX"),
    (b"\x89HDF", 0, "an HDF5 file, perhaps a Keras model", "convert it with tf2onnx"),
    (b"TFL3", 4, "a TensorFlow Lite model", "convert it with tf2onnx"),
    (b"ORTM", 4, "an onnxruntime .ort file", "use the ONNX file that it was made from"),
    (b"<", 0, "an XML or HTML file", "check where it was downloaded from"),
    (b"\x1f\x8b", 0, "a gzip archive", "unpack it"),
)


def load_model(
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    data_root: str | os.PathLike[str] | None = None,
) -> Model:
    """Load and validate an ONNX file.

    What is in the file is kept as it is; external weights stay in their file and are mapped into
    memory on use, so keep that file in place.

    Args:
        path: The `.onnx` file; external data must lie in its folder or below.
        name: What requests and messages call the model; the file's stem by default.
        data_root: A folder that you trust the file with, e.g. a hub's cache: links are followed
            then, from the model and to its external data, as long as they end inside of it.

    Raises:
        ModelError: the file is missing, damaged, unsafe or unsupported; says which, and the
            remedy.
    """
    path = Path(path).absolute()
    what = f"model file {str(path)!r}"
    root = None if data_root is None else _checked_root(Path(data_root), what)
    data, state = _read(path, root, what)
    known = recall(state)
    if known is not None:
        return _recalled(known, data, name or path.stem, path, what, state)
    model = _validated(data, name or path.stem, path, what, state, root)
    content, is_plain = model.content, not (model.defaults or model.fixed or model.outline)
    if is_plain and content.file_state is not None:
        known = Checked(content.summary, content.metadata, model.inputs, model.outputs)
        remember(state, known)
    return model


def model_from_bytes(data: bytes, *, name: str) -> Model:
    """Validate what an ONNX file would hold, e.g. `ModelProto.SerializeToString()`.

    Args:
        data: The serialized model with all of its weights: there is no folder for others.
        name: What requests and messages call the model.

    Raises:
        ModelError: the bytes are damaged or unsupported, or refer to a file.

    >>> from coinfer.testing.models import tiny_linear
    >>> model = tiny_linear().model
    >>> model_from_bytes(model.to_bytes(), name="copy").fingerprint == model.fingerprint
    True
    """
    return _validated(data, name, None, f"model {name!r}")


def _checked_root(root: Path, what: str) -> Path:
    try:
        if root.is_dir():
            return root.resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(f"{what}: {str(root)!r} cannot be read: {error}") from error
    raise ModelError(f"{what}: {str(root)!r}, where data is allowed, is no folder; check the path")


def _inside(path: Path, root: Path, what: str) -> tuple[str, ...]:
    """Return the way from the root to the file that a path leads to."""
    real = path.resolve()
    if not real.is_relative_to(root):
        raise ModelError(
            f"{what} leads out of {str(root)!r}, the folder that data is allowed in; allow a "
            f"folder that holds all of the model"
        )
    return real.relative_to(root).parts


def _read(path: Path, root: Path | None, what: str) -> tuple[bytes, FileState | None]:
    try:
        folder, way = (
            (path.parent, (path.name,)) if root is None else (root, _inside(path, root, what))
        )
        if path.is_dir():
            raise ModelError(f"{what} is a directory; name the .onnx file in it")
        if not path.exists():
            raise ModelError(f"{what} does not exist; check the path")
        if not path.is_file():
            raise ModelError(f"{what} is not a regular file; name an .onnx file")
        with opened(folder, way, follow=root is None) as (number, status):
            read_ns = time.time_ns()
            before = _state(status, read_ns)
            if before.size > PROTOBUF_LIMIT_BYTES:
                raise ModelError(
                    f"{what} has {format_bytes(before.size)} but protobuf holds at most 2 GiB; "
                    f"save it with external data"
                )
            with os.fdopen(number, "rb", closefd=False) as file:
                data = file.read()
            after = _state(os.fstat(number), read_ns)
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(f"{what} cannot be read: {error}") from error
    if not data:
        raise ModelError(f"{what} is empty; copy or export it again")
    return data, before if before == after else None


def _state(status: os.stat_result, read_ns: int) -> FileState:
    return FileState(
        device=status.st_dev,
        inode=status.st_ino,
        size=status.st_size,
        written_ns=status.st_mtime_ns,
        changed_ns=status.st_ctime_ns,
        read_ns=read_ns,
    )


def _parse(data: bytes, what: str) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    for magic, offset, kind, remedy in _OTHER_FORMATS:
        if data[offset : offset + len(magic)] == magic:
            raise ModelError(f"{what} is not ONNX but {kind}; {remedy}")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError:
        raise ModelError(
            f"{what} is not an ONNX file, or is truncated or corrupt ({format_bytes(len(data))}); "
            f"copy or export it again"
        ) from None
    if not proto.HasField("ir_version") and not proto.HasField("graph"):
        raise ModelError(f"{what} is not an ONNX file; export the model to ONNX")
    if not proto.HasField("graph") or not proto.graph.output:
        raise ModelError(
            f"{what} has no graph with outputs; it is truncated or was exported wrongly, export it "
            f"again"
        )
    _check_versions(proto, what)
    return proto


def _validated(
    data: bytes,
    name: str,
    path: Path | None,
    what: str,
    state: FileState | None = None,
    root: Path | None = None,
) -> Model:
    from coinfer.model import message, validation
    from coinfer.model.defaults import take_from_message
    from coinfer.model.external import check_external_data, external_of
    from coinfer.model.tensor_walk import find_tensors
    from coinfer.model.text_walk import broken_text

    proto = _parse(data, what)
    if broken := broken_text(*proto.graph.input, *proto.graph.output):
        raise validation.not_valid(what, ValueError(f"{broken} is not text in UTF-8"))
    found = find_tensors(proto)
    _check_representable(proto, found, what)
    files = check_external_data(external_of(found.tensors), path and path.parent, what, root)
    try:
        _check_rules(proto, data, has_external=bool(files))
        weight_bytes = message.check_tensor_sizes(found, what)
        defaults = take_from_message(proto, files)
        if defaults.values:
            data, found = proto.SerializeToString(), find_tensors(proto)
            weight_bytes = message.check_tensor_sizes(found, what)
        encoded = Encoded(
            data=data,
            files=files,
            summary=message.summary_of(proto, found, weight_bytes),
            metadata={_text(e.key): _text(e.value) for e in proto.metadata_props},
            what=what,
            state=None if defaults.values else state,
            origin=Origin(tuple(files.values()), state),
        )
        inputs, outputs = message.inputs_of(proto), message.outputs_of(proto)
    except ModelError:
        raise
    except Exception as error:
        # The file is untrusted, and a damaged one raises almost anything in these libraries.
        raise validation.not_valid(what, error) from error
    return made_of(encoded, proto, inputs, outputs, name, path, defaults)


def _recalled(
    known: Checked, data: bytes, name: str, path: Path, what: str, state: FileState | None
) -> Model:
    """Make a model of a file that was checked before."""
    encoded = Encoded(
        data=data,
        files={},
        summary=known.summary,
        metadata=known.metadata,
        what=what,
        state=state,
        origin=Origin((), state),
    )
    return Model(
        name=name,
        content=Content(name, encoded),
        inputs=known.inputs,
        outputs=known.outputs,
        source=path,
    )


def _check_versions(proto: onnx.ModelProto, what: str) -> None:
    from coinfer.model import validation

    opsets = {entry.domain: entry.version for entry in proto.opset_import}
    validation.check_versions(proto.ir_version, opsets, what)
    for function in proto.functions:
        own = {entry.domain: entry.version for entry in function.opset_import} or opsets
        validation.check_versions(proto.ir_version, own, f"{what}: function {function.name!r}")


def _check_rules(proto: onnx.ModelProto, data: bytes, *, has_external: bool) -> None:
    """Let onnx check what was read; it never opens a file.

    It would look for external data itself, and it wants every output to have a shape, which no
    library that runs models needs. There it gets a copy: the outputs have a shape, and the external
    data, which is checked already, is left out.
    """
    import onnx

    from coinfer.model import message
    from coinfer.model.external import external_of
    from coinfer.model.tensor_walk import find_tensors

    if not has_external and all(message.has_shape(info) for info in proto.graph.output):
        onnx.checker.check_model(data)
        return
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for info in copy.graph.output:
        if not message.has_shape(info):
            info.type.tensor_type.shape.SetInParent()
    for tensor in external_of(find_tensors(copy).tensors):
        tensor.ClearField("data_location")
        tensor.ClearField("external_data")
        tensor.dims[:] = [0]
    onnx.checker.check_model(copy.SerializeToString())


def _text(text: str | bytes) -> str:
    """Return a text; some releases of protobuf give what is not UTF-8 as bytes."""
    return text if isinstance(text, str) else text.decode("utf-8", "backslashreplace")


def _check_representable(proto: onnx.ModelProto, found: Found, what: str) -> None:
    """Refuse what the in-memory form would drop without a word, or leave in another file."""
    from coinfer.model.external import refuse_external

    refuse_external(found.elsewhere, what)
    if found.has_sparse_initializers:
        raise ModelError(
            f"{what} has sparse initializers, which are not supported; export dense weights"
        )
    names = [tensor.name for tensor in proto.graph.initializer]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ModelError(f"{what} has two initializers named {twice!r}; export it again")
