"""Content: a model's graph with its weights, kept as the bytes of its file until it is needed.

Backends take the bytes. Building the graph takes longer than checking the file and holds the
weights a second time. So the graph is built when something first reads it; then the bytes are
dropped.
"""

from __future__ import annotations

import gc
import mmap
import tempfile
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from coinfer.errors import ModelError
from coinfer.fork_locks import free_after_fork
from coinfer.model.data_file import DataFile
from coinfer.model.fingerprint import Fingerprint
from coinfer.units import format_bytes

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = [
    "PROTOBUF_LIMIT_BYTES",
    "Content",
    "Encoded",
    "FileState",
    "ModelFile",
    "Origin",
    "Summary",
]

PROTOBUF_LIMIT_BYTES = 2**31 - 1
"""No protobuf message can be larger, so no ONNX file without external data can."""

_LITTLE_BYTES = 2**20
"""What may be held of a model in memory for the case that it is loaded again."""

_MUCH_BYTES = 2**24
"""What a graph that is not needed any more must hold, to look for it at once."""


class Summary(NamedTuple):
    """What a graph is made of.

    Attributes:
        op_types: Types of its operators, also of those in branches.
        weight_elements: Number of elements of its initializers by dtype, as ONNX names it: `FLOAT`.
        weight_bytes: Bytes of all initializers and constants, as stored.
    """

    op_types: frozenset[str]
    weight_elements: Mapping[str, int]
    weight_bytes: int


class FileState(NamedTuple):
    """What the system said of a file when it was read: as long as it says that, nothing changed.

    Attributes:
        device: The disk.
        inode: The file's number there.
        size: Bytes.
        written_ns: When it was last written, or what a program set that to.
        changed_ns: When anything of it last changed; no program can set it.
        read_ns: When it was read.
    """

    device: int
    inode: int
    size: int
    written_ns: int
    changed_ns: int
    read_ns: int

    def is_of(self, path: Path) -> bool:
        """Return whether the system says the same of a file now, but for who may read it."""
        try:
            status = path.stat()
        except OSError:
            return False
        now = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        return now == self[:4]


class ModelFile:
    """A file that holds all of a model: its bytes are read whenever they are needed.

    Args:
        path: Where it is.
        state: That in which it was checked.
    """

    __slots__ = ("_path", "_state")

    def __init__(self, path: Path, state: FileState) -> None:
        self._path, self._state = path, state

    @property
    def is_there(self) -> bool:
        """Whether it still is the file that was checked."""
        return self._state.is_of(self._path)

    def __bytes__(self) -> bytes:
        """Read it.

        Raises:
            ModelError: it is not the file that was checked any more.
        """
        is_same, data = self.is_there, b""
        if is_same:
            try:
                data = self._path.read_bytes()
            except OSError:
                is_same = False
        if not (is_same and self.is_there):
            raise ModelError(
                f"{self._path} is not the file that it was when the model was loaded; put the file "
                f"back, or load the model again"
            )
        return data


class Origin(NamedTuple):
    """The files that a model comes from.

    Attributes:
        files: Those with external data.
        state: That of the model file when it was read; None: there is none, or it changed
            meanwhile.
    """

    files: tuple[DataFile, ...]
    state: FileState | None


class Encoded(NamedTuple):
    """A file that was checked.

    Attributes:
        data: What it holds, in memory, in a file without a name (`Content.paged`), or as the
            user's file (`Content.in_file`).
        files: The files with external data, by the locations that name them.
        summary: What the graph is made of.
        metadata: The model's properties.
        what: What messages call the file.
        state: That of the file that holds just this; None: there is none, or it changed while it
            was read.
        origin: The files that it was made from.
    """

    data: bytes | mmap.mmap | ModelFile
    files: Mapping[str, DataFile]
    summary: Summary
    metadata: Mapping[str, str]
    what: str
    state: FileState | None = None
    origin: Origin | None = None


class Content:
    """A graph with its weights. Any thread may ask for anything.

    Args:
        name: Name of the model, for messages.
        held: The graph, which must not change any more, or the file that it is read from.
        origin: The files that it comes from; those of an `Encoded` are known.
    """

    __slots__ = (
        *("_encoded", "_fingerprint", "_graph", "_lock", "_name", "_origin", "_state", "_summary"),
        "__weakref__",
    )

    def __init__(self, name: str, held: ir.Model | Encoded, origin: Origin | None = None) -> None:
        self._name = name
        self._origin = held.origin if isinstance(held, Encoded) else origin
        self._lock = free_after_fork(threading.Lock())
        self._encoded = held if isinstance(held, Encoded) else None
        self._graph = None if isinstance(held, Encoded) else held
        self._fingerprint: Fingerprint | None = None
        self._summary = held.summary if isinstance(held, Encoded) else None
        self._state = held.state if isinstance(held, Encoded) and not held.files else None

    def __reduce__(
        self,
    ) -> tuple[type[Content], tuple[str, ir.Model | Encoded, Origin | None]]:
        """Be copied and pickled as it is held; a lock cannot be."""
        with self._lock:
            held = self._graph or self._encoded
        if isinstance(held, Encoded) and not isinstance(held.data, bytes):
            held = held._replace(data=_read(held.data))
        assert held is not None  # one of them always is there
        return Content, (self._name, held, self._origin)

    @property
    def graph(self) -> ir.Model:
        """The graph, always the same object.

        Raises:
            ModelError: the file follows the rules of ONNX, but `onnx_ir` cannot read it.
        """
        with self._lock:
            if self._graph is None:
                self._graph = self._built()
                self._encoded = None
            return self._graph

    @property
    def fingerprint(self) -> Fingerprint:
        """Identity of structure and weights; computed once, without keeping the graph for it.

        Raises:
            ModelError: as for `graph`, or the graph uses a value that nothing produces, or a
                function calls itself.
        """
        with self._lock:
            if self._fingerprint is None:
                from coinfer.model.canonical import fingerprint_of  # needs the heavy libraries

                graph = self._graph or self._built(shapes=False)
                self._fingerprint = fingerprint_of(graph, self._name)
                encoded = self._encoded
                if encoded is not None and encoded.summary.weight_bytes > _MUCH_BYTES:
                    gc.collect()  # a graph is full of cycles: its weights would stay a while
            return self._fingerprint

    def know(self, fingerprint: Fingerprint) -> None:
        """Take a fingerprint that was computed before from the same file."""
        with self._lock:
            self._fingerprint = self._fingerprint or fingerprint

    @property
    def file_state(self) -> FileState | None:
        """State of the one file that held everything when it was read; None: there is none."""
        encoded = self._encoded
        return None if encoded is None or encoded.files else encoded.state

    @property
    def is_small(self) -> bool:
        """Whether little of it is in memory: it has few weights, or all in files of their own."""
        encoded = self._encoded
        if encoded is not None and encoded.files:
            return len(encoded.data) <= _LITTLE_BYTES if isinstance(encoded.data, bytes) else True
        return self.summary.weight_bytes <= _LITTLE_BYTES

    @property
    def held_bytes(self) -> int:
        """Bytes that this process holds of it; what is read from files when it is needed is not."""
        encoded = self._encoded
        if encoded is None:
            return self.summary.weight_bytes
        return len(encoded.data) if isinstance(encoded.data, bytes) else 0

    @property
    def is_there(self) -> bool:
        """Whether it can be read: false if it is in a file that is not what was checked."""
        data = None if self._encoded is None else self._encoded.data
        return not isinstance(data, ModelFile) or data.is_there

    def check_files(self, source: Path | None = None) -> tuple[int, ...]:
        """Find out whether the files that the weights are read from are those that were checked.

        Args:
            source: The model file, if it is to be read once more.

        Returns:
            When anything of each last changed, in nanoseconds: equal numbers before and after
            somebody else read them tell that no other file took its place meanwhile, however short.

        Raises:
            ModelError: names the one that is not.
        """
        files, state = self._origin or Origin((), None)
        changed = [file.check() for file in files]
        if source is None:
            return tuple(changed)
        if not (state and state.is_of(source)):
            raise ModelError(
                f"{source} is not the file that it was when the model was loaded; load the model "
                f"again"
            )
        return (*changed, source.stat().st_ctime_ns)

    @property
    def summary(self) -> Summary:
        """What the graph is made of; found out once."""
        found = self._summary
        if found is None:
            found = self._summary = _summary_of(self.graph)
        return found

    @property
    def metadata(self) -> Mapping[str, str]:
        """The model's properties."""
        encoded = self._encoded
        return self.graph.metadata_props if encoded is None else encoded.metadata

    def to_bytes(self) -> bytes:
        """Return it as one ONNX `ModelProto` that refers to no other file.

        Raises:
            ModelError: it would exceed the 2 GiB that a protobuf message can hold.
        """
        size = self.summary.weight_bytes
        if size > PROTOBUF_LIMIT_BYTES:
            raise self._too_large(size)
        encoded = self._encoded
        if encoded is not None and not encoded.files:
            return _read(encoded.data)

        import onnx_ir as ir  # slow to import, and what is read from one file needs it not
        from google.protobuf.message import EncodeError

        from coinfer.model.validation import embed, tensors_of

        try:
            graph = self.graph
            if any(isinstance(tensor, ir.ExternalTensor) for tensor in tensors_of(graph)):
                graph = graph.clone()
                embed(graph)
            data: bytes = ir.to_proto(graph).SerializeToString()
        except ir.serde.SerdeError as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, ModelError):
                cause = cause.__cause__
            raise cause or error from error  # a file with weights may be another one by now
        except (EncodeError, ValueError):
            if size < PROTOBUF_LIMIT_BYTES // 2:
                raise
            raise self._too_large(size) from None
        return data

    def detached(self) -> Content:
        """Return it as bytes, which can be sent to another process; a graph may not be.

        Raises:
            ModelError: it would exceed the 2 GiB that a protobuf message can hold.
        """
        if self._encoded is not None:
            return self
        data, what = self.to_bytes(), f"model {self._name!r}"
        found = Content(self._name, Encoded(data, {}, self.summary, dict(self.metadata), what))
        found._fingerprint = self._fingerprint
        return found

    def in_file(self, source: Path) -> Content | None:
        """Return it as the file that it was read from; None if it is not all that is there.

        Args:
            source: That file. If it changes, nothing can be read from it any more.
        """
        state = self._state
        if state is None or not state.is_of(source):
            return None
        summary, metadata, what = self.summary, dict(self.metadata), f"model file {str(source)!r}"
        held = Encoded(ModelFile(source, state), {}, summary, metadata, what, state, self._origin)
        found = Content(self._name, held)
        found._fingerprint = self._fingerprint
        return found

    def paged(self, folder: Path) -> Content:
        """Return it as bytes in a file without a name, which are in memory while they are read.

        What has its weights in files of its own stays as it is.

        Args:
            folder: Where the file is made; it goes with the process.

        Raises:
            ModelError: it would exceed the 2 GiB that a protobuf message can hold.
            OSError: the file cannot be written.
        """
        detached = self.detached()
        encoded = detached._encoded
        assert encoded is not None
        if encoded.files or not isinstance(encoded.data, bytes) or not encoded.data:
            return detached
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(encoded.data)
            file.flush()
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        paged = Content(self._name, encoded._replace(data=mapped), self._origin)
        paged._fingerprint = self._fingerprint
        return paged

    def _built(self, *, shapes: bool = True) -> ir.Model:
        """Build the graph, with what the file says of the shapes inside of it if that counts."""
        import onnx
        import onnx_ir as ir

        from coinfer.model.text_walk import broken_text
        from coinfer.model.validation import not_valid, read_from

        encoded = self._encoded
        assert encoded is not None
        try:
            proto = onnx.ModelProto.FromString(_read(encoded.data))
            if not shapes:
                proto.graph.ClearField("value_info")
            if broken := broken_text(proto):
                raise ValueError(f"{broken} is not text in UTF-8")
            built: ir.Model = ir.from_proto(proto)
        except Exception as error:
            # The file is untrusted, and a damaged one raises almost anything in this library.
            raise not_valid(encoded.what, error) from error
        if encoded.files:
            read_from(built, encoded.files)
        return built

    def _too_large(self, size: int) -> ModelError:
        return ModelError(
            f"model {self._name!r} takes {format_bytes(size)} as one message but protobuf holds "
            f"at most 2 GiB; convert its weights to float16 or load it from its file"
        )


def _read(data: bytes | mmap.mmap | ModelFile) -> bytes:
    """Return what is held as bytes; what is mapped does not stay in memory for that."""
    found = data if isinstance(data, bytes) else bytes(data)
    if isinstance(data, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        data.madvise(mmap.MADV_DONTNEED)
    return found


def _summary_of(ir_model: ir.Model) -> Summary:
    from coinfer.model.validation import tensors_of

    elements: Counter[str] = Counter()
    for value in ir_model.graph.initializers.values():
        if value.const_value is not None:
            elements[value.const_value.dtype.name] += value.const_value.size
    return Summary(
        op_types=frozenset(node.op_type for node in ir_model.graph.all_nodes()),
        weight_elements=elements,
        weight_bytes=sum(tensor.nbytes for tensor in tensors_of(ir_model)),
    )
