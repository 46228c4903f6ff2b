"""Message mutation: change a protobuf message somewhere, by its descriptors."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from fuzz.hostile import FLOATS, INTEGERS, TEXTS

__all__ = ["mutate_message"]

_MOST_COPIES = 300
_DEEPEST = 30
_LOCATIONS = ("w.bin", "../w.bin", "/dev/zero", "/etc/hostname", ".", "", "gone.bin", "m.onnx")
_OFFSETS = ("0", "-1", "4", "1e3", "9223372036854775808", "x", "")


class _Place(NamedTuple):
    """A field that is set, in the message that holds it."""

    message: Message
    field: FieldDescriptor

    @property
    def value(self) -> Any:
        return getattr(self.message, self.field.name)


def mutate_message(message: Message, rng: random.Random, donors: list[Message]) -> None:
    """Change one to five things in place; `donors` are messages that parts are taken from."""
    for _ in range(min(5, 1 + int(rng.expovariate(0.8)))):
        places = list(_places(message))
        if not places:
            return
        # Fields near the root are few; half of the time one of them is chosen.
        near = places[: max(20, len(places) // 10)]
        place = rng.choice(near if rng.random() < 0.3 else places)
        _choose(place, rng)(place, rng, donors)


def _places(message: Message) -> Iterator[_Place]:
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            for each in value.values():
                if isinstance(each, Message):
                    yield from _places(each)
            continue
        yield _Place(message, field)
        if field.message_type is not None:
            for each in value if field.is_repeated else (value,):
                yield from _places(each)


def _choose(
    place: _Place, rng: random.Random
) -> Callable[[_Place, random.Random, list[Message]], None]:
    name = place.message.DESCRIPTOR.name
    if name == "TensorProto" and rng.random() < 0.2:
        return _make_external
    if name == "NodeProto" and rng.random() < 0.05:
        return _nest
    if rng.random() < 0.1:
        return _set_unset
    if place.field.is_repeated:
        return rng.choice((_delete, _duplicate, _swap, _multiply, _replace, _replace, _graft))
    return rng.choice((_delete, _replace, _replace, _replace, _graft))


def _delete(place: _Place, rng: random.Random, donors: list[Message]) -> None:
    if place.field.is_repeated and len(place.value) > 1 and rng.random() < 0.8:
        del place.value[rng.randrange(len(place.value))]
    else:
        place.message.ClearField(place.field.name)


def _duplicate(place: _Place, rng: random.Random, donors: list[Message]) -> None:
    place.value.append(_copied(rng.choice(place.value)))


def _multiply(place: _Place, rng: random.Random, donors: list[Message]) -> None:
    one = _copied(rng.choice(place.value))
    place.value.extend([one] * rng.randrange(2, _MOST_COPIES))


def _swap(place: _Place, rng: random.Random, donors: list[Message]) -> None:
    values = [_copied(each) for each in place.value]
    rng.shuffle(values)
    del place.value[:]
    place.value.extend(values)


def _copied(value: Any) -> Any:
    if isinstance(value, Message):
        copy = type(value)()
        copy.CopyFrom(value)
        return copy
    return value


def _replace(place: _Place, rng: random.Random, donors: list[Message]) -> None:
    """Give a scalar another value; of a message, mutate one of its fields."""
    if place.field.message_type is not None:
        inner = rng.choice(place.value) if place.field.is_repeated else place.value
        _set_unset(_Place(inner, place.field), rng, donors)
        return
    _assign(place, _other_value(place, rng, donors), rng)


def _assign(place: _Place, value: Any, rng: random.Random) -> None:
    if place.field.is_repeated:
        place.value[rng.randrange(len(place.value))] = value
    else:
        setattr(place.message, place.field.name, value)


def _other_value(place: _Place, rng: random.Random, donors: list[Message]) -> Any:
    kind = place.field.type
    if kind in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return rng.choice(FLOATS)
    if kind == FieldDescriptor.TYPE_STRING:
        known = [*_strings(donors[0]), "Relu", "If", "Loop", "Reshape", "Cast"]
        return rng.choice(known) if known and rng.random() < 0.6 else rng.choice(TEXTS)
    if kind == FieldDescriptor.TYPE_BYTES:
        data = bytearray(place.value[0] if place.field.is_repeated else place.value)
        rng.shuffle(cut := data[: rng.randrange(len(data) + 1)])
        return bytes(cut)
    if kind == FieldDescriptor.TYPE_ENUM:  # of closed enums no other value can be assigned
        return rng.choice(place.field.enum_type.values).number
    if place.field.name in ("data_type", "elem_type") and rng.random() < 0.8:
        return rng.randrange(30)
    return _bounded(rng.choice((*INTEGERS, rng.randrange(20))), place.field)


def _strings(message: Message) -> list[str]:
    """Collect the texts of a message, so that names collide and cycles arise."""
    found = []
    for place in _places(message):
        if place.field.type == FieldDescriptor.TYPE_STRING:
            found += list(place.value) if place.field.is_repeated else [place.value]
    return found


def _set_unset(place: _Place, rng: random.Random, donors: list[Message]) -> None:
    """Give a value to any field of the message, set or not."""
    message = place.message
    field = rng.choice(message.DESCRIPTOR.fields)
    target = _Place(message, field)
    if field.message_type is not None:
        _graft(target, rng, donors)
    elif field.is_repeated:
        if field.type == FieldDescriptor.TYPE_BYTES:
            target.value.append(b"\xff\x00")
        else:
            target.value.extend([_other_value(target, rng, donors)])
    else:
        _assign(target, _other_value(target, rng, donors), rng)


def _bounded(value: int, field: FieldDescriptor) -> int:
    wide = field.type in (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_SINT64)
    most = 2**63 - 1 if wide else 2**31 - 1
    least = (
        0 if field.type in (FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_UINT32) else -most - 1
    )
    return max(least, min(most, value))


def _graft(place: _Place, rng: random.Random, donors: list[Message]) -> None:
    """Put a message of the same type, from elsewhere, in this place."""
    wanted = place.field.message_type
    if wanted is None:
        _replace(place, rng, donors)
        return
    found = [
        each
        for other in _places(rng.choice(donors))
        if other.field.message_type is wanted
        for each in (other.value if other.field.is_repeated else (other.value,))
    ]
    if not found:
        return
    copy = _copied(rng.choice(found))
    if place.field.is_repeated:
        place.value.insert(rng.randrange(len(place.value) + 1), copy)
    else:
        place.value.CopyFrom(copy)


def _make_external(place: _Place, rng: random.Random, donors: list[Message]) -> None:
    """Say that a tensor's data are in another file."""
    tensor: Any = place.message
    tensor.data_location = 1
    del tensor.external_data[:]
    entries = {"location": rng.choice(_LOCATIONS)}
    if rng.random() < 0.5:
        entries["offset"] = rng.choice(_OFFSETS)
    if rng.random() < 0.5:
        entries["length"] = rng.choice(_OFFSETS)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    if rng.random() < 0.7:
        tensor.ClearField("raw_data")


def _nest(place: _Place, rng: random.Random, donors: list[Message]) -> None:
    """Put a node inside of graphs inside of graphs."""
    node: Any = place.message
    for _ in range(rng.randrange(1, _DEEPEST)):
        inner = _copied(node)
        outputs = list(node.output)
        node.Clear()
        node.op_type = "If"
        node.input.append("x")
        node.output.extend(outputs)
        for branch in ("then_branch", "else_branch")[: rng.randrange(1, 2)]:
            attribute = node.attribute.add(name=branch, type=5)
            attribute.g.name = "g"
            attribute.g.node.append(inner)
            attribute.g.output.add(name=outputs[0] if outputs else "")
