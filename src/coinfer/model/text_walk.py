"""Find text of a parsed ONNX file that is none: some releases of protobuf hand it out as bytes.

Whatever reads a name later takes it for text. As in `tensor_walk`, fields are found by their type.
Imported on first use: it needs `onnx`.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import onnx

from coinfer.model.tensor_walk import is_repeated

__all__ = ["broken_text"]


_FREE = frozenset({"doc_string", "metadata_props"})


class _Fields(NamedTuple):
    """The fields of a type of message that hold text or messages: name, whether it is a list."""

    texts: tuple[tuple[str, bool], ...]
    messages: tuple[tuple[str, bool], ...]


def broken_text(*messages: Any) -> str:
    """Say which text of a file, or of parts of one, is not UTF-8, and where; nothing if all is.

    What people wrote to be read by others, descriptions and metadata, may be in any encoding.

    >>> broken_text(onnx.ModelProto(producer_name="me"))
    ''
    """
    stack: list[tuple[Any, str]] = [(each, each.DESCRIPTOR.full_name) for each in messages]
    while stack:
        message, kind = stack.pop()
        fields = _fields(kind)
        for name, is_list in fields.texts:
            value = getattr(message, name)
            for text in value if is_list else (value,):
                if type(text) is bytes:
                    return f"{kind.removeprefix('onnx.')}.{name} {text[:100]!r}"
        for name, is_list in fields.messages:
            inner = _kind_of(kind, name)
            if is_list:
                stack.extend((each, inner) for each in getattr(message, name))
            elif message.HasField(name):
                stack.append((getattr(message, name), inner))
    return ""


@cache
def _fields(kind: str) -> _Fields:
    found = _descriptor(kind).fields
    return _Fields(
        tuple(
            (f.name, is_repeated(f))
            for f in found
            if f.type == f.TYPE_STRING and f.name not in _FREE
        ),
        tuple(
            (f.name, is_repeated(f))
            for f in found
            if f.message_type is not None and f.name not in _FREE
        ),
    )


@cache
def _kind_of(kind: str, name: str) -> str:
    return str(_descriptor(kind).fields_by_name[name].message_type.full_name)


@cache
def _descriptor(kind: str) -> Any:
    stack, seen = [onnx.ModelProto.DESCRIPTOR], set[str]()
    while stack:
        descriptor = stack.pop()
        if descriptor.full_name == kind:
            return descriptor
        if descriptor.full_name not in seen:
            seen.add(descriptor.full_name)
            stack += [f.message_type for f in descriptor.fields if f.message_type is not None]
    raise LookupError(kind)
