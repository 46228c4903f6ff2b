"""Descriptors: protobuf messages and services made from tables of fields. Knows no message.

Made here and not by a compiler, and kept in a pool of their own: clients such as `tritonclient`
register messages of the same full names in the default pool of the process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["Messages"]

_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _FIELD.TYPE_BOOL,
    "bytes": _FIELD.TYPE_BYTES,
    "double": _FIELD.TYPE_DOUBLE,
    "float": _FIELD.TYPE_FLOAT,
    "int32": _FIELD.TYPE_INT32,
    "int64": _FIELD.TYPE_INT64,
    "string": _FIELD.TYPE_STRING,
    "uint32": _FIELD.TYPE_UINT32,
    "uint64": _FIELD.TYPE_UINT64,
}


class Messages:
    """The message classes of one package, by name.

    A table of fields has one string for each message: `name:number:type` for each field, with
    spaces between. A type is a scalar of protobuf, or the name of a message or an enum of the same
    package; `*` after it means repeated, `KEY>VALUE` a map, and `@CHOICE` after it that it is one
    of the fields of which a message has one. A message `A.B` is nested in `A`.

    Args:
        package: The package.
        fields: Fields by message, each message after the one that it is nested in.
        enums: Values by enum, from 0 on; `A.B` is nested in `A`.

    >>> pets = Messages("pets", {"Pet": "name:1:string kind:2:Kind friends:3:Pet*"},
    ...                 {"Kind": ("CAT", "DOG")})
    >>> pets["Pet"](name="Tom", friends=[{"name": "Spike", "kind": "DOG"}]).friends[0].kind
    1
    """

    def __init__(
        self, package: str, fields: Mapping[str, str], enums: Mapping[str, tuple[str, ...]]
    ) -> None:
        file = descriptor_pb2.FileDescriptorProto(
            name=f"coinfer/{package}", package=package, syntax="proto3"
        )
        made: dict[str, Any] = {}
        for name in fields:
            outer, _, last = name.rpartition(".")
            made[name] = (made[outer].nested_type if outer else file.message_type).add(name=last)
        for name, values in enums.items():
            outer, _, last = name.rpartition(".")
            enum = (made[outer].enum_type if outer else file.enum_type).add(name=last)
            for number, value in enumerate(values):
                enum.value.add(name=value, number=number)
        for name, text in fields.items():
            for field in text.split():
                _add_field(made[name], field, f".{package}", name, enums)
        pool = descriptor_pool.DescriptorPool()
        pool.AddSerializedFile(file.SerializeToString())
        self._classes = {
            name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
            for name in fields
        }

    def __getitem__(self, name: str) -> Any:
        """Return the class of a message."""
        return self._classes[name]

    def names(self) -> tuple[str, ...]:
        """Names of all messages."""
        return tuple(self._classes)


def _add_field(
    message: Any, text: str, package: str, owner: str, enums: Mapping[str, tuple[str, ...]]
) -> None:
    name, number, kind = text.split(":")
    kind, _, choice = kind.partition("@")
    field = message.field.add(name=name, number=int(number), label=_FIELD.LABEL_OPTIONAL)
    if choice:
        known = [each.name for each in message.oneof_decl]
        if choice not in known:
            message.oneof_decl.add(name=choice)
            known.append(choice)
        field.oneof_index = known.index(choice)
    key, arrow, value = kind.partition(">")
    if arrow:
        entry = "".join(part.capitalize() for part in name.split("_")) + "Entry"
        pairs = message.nested_type.add(name=entry)
        pairs.options.map_entry = True
        _add_field(pairs, f"key:1:{key}", package, owner, enums)
        _add_field(pairs, f"value:2:{value}", package, owner, enums)
        field.label, field.type = _FIELD.LABEL_REPEATED, _FIELD.TYPE_MESSAGE
        field.type_name = f"{package}.{owner}.{entry}"
        return
    if kind.endswith("*"):
        kind, field.label = kind[:-1], _FIELD.LABEL_REPEATED
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type = _FIELD.TYPE_ENUM if kind in enums else _FIELD.TYPE_MESSAGE
        field.type_name = f"{package}.{kind}"
