from __future__ import annotations

import inspect
import re
from http import HTTPStatus

import pytest

from coinfer import errors
from coinfer.errors import CoinferError, UnknownNameError

CLASSES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, Exception)
]
GRPC = {
    "DEADLINE_EXCEEDED",
    "INTERNAL",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "UNAUTHENTICATED",
    "UNAVAILABLE",
    "UNIMPLEMENTED",
    "UNKNOWN",
}


def test_the_public_names_are_the_classes_in_order() -> None:
    assert errors.__all__ == sorted(cls.__name__ for cls in CLASSES)


def test_the_drawn_tree_is_the_real_one() -> None:
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^    ((?:[│ ]   )*(?:[├└]── )?)(\w+Error)\b", line)
        if found:
            depth = len(found[1]) // 4
            path[depth:] = [found[2]]
            drawn[found[2]] = path[depth - 1] if depth else "Exception"
    assert drawn == {cls.__name__: cls.__bases__[0].__name__ for cls in CLASSES}


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_has_a_status_that_exists(cls: type[CoinferError]) -> None:
    assert HTTPStatus(cls.http_status) >= HTTPStatus.BAD_REQUEST
    assert cls.grpc_status in GRPC
    assert cls.__doc__


def test_the_status_says_whose_fault_it_is() -> None:
    assert {cls.http_status // 100 for cls in CLASSES if issubclass(cls, errors.CallerError)} == {4}
    faults = {cls.http_status for cls in CLASSES if issubclass(cls, errors.SystemFaultError)}
    assert faults == {500, 501}  # 501: a part of a protocol that is not offered


class TestUnknownName:
    def test_the_nearest_name_is_suggested(self) -> None:
        error = UnknownNameError.of("policy", "fcsf", ["sjf", "fcfs"])
        assert str(error) == "unknown policy 'fcsf'. Did you mean 'fcfs'? Known: fcfs, sjf."

    def test_nothing_is_suggested_if_nothing_is_near(self) -> None:
        error = UnknownNameError.of("policy", "zzz", ["sjf"], hint="Install it.")
        assert str(error) == "unknown policy 'zzz'. Known: sjf. Install it."

    def test_no_known_name_at_all(self) -> None:
        assert str(UnknownNameError.of("policy", "x", [])).endswith("Known: none.")


def test_a_word_without_end_is_not_repeated_whole() -> None:
    text = f"tensor 'w' has the length '{'a' * 5000}', not a number; export the model again"
    error = errors.ModelError(text)
    assert len(str(error)) < 500
    assert str(error).startswith("tensor 'w' has the length 'aaa")
    assert str(error).endswith("aaa', not a number; export the model again")
    assert error.args == (text,)
    assert str(errors.ModelError("a/b" * 100)) == "a/b" * 100


def test_control_characters_of_a_name_do_not_reach_terminals_or_logs() -> None:
    error = errors.ModelError("no operator \x1b[31m\u202e of\n\tthis name, caf\u00e9")
    assert str(error) == r"no operator \x1b[31m\u202e of" + "\n\tthis name, caf\u00e9"
