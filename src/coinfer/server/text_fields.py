"""Text fields: which fields a file in protobuf's text format has, and on which lines.

`google.protobuf.text_format` reads the values; it does not say where they stand, and stops at the
first field that it does not know.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["TextField", "text_fields"]

_TOKEN = re.compile(
    r"""(?P<skip>[ \t\r,;]+|\#[^\n]*)
    |(?P<line>\n)
    |(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<open>[{<])
    |(?P<close>[}>])
    |(?P<mark>[:\[\]])
    |(?P<word>[^\s,;:{}<>\[\]"'\#]+)""",
    re.VERBOSE,
)


class TextField(NamedTuple):
    """A field of a text.

    Attributes:
        path: Names from the outermost message to the field.
        line: From 1.
        value: Its value as it is written, if that is a word or a number; empty otherwise.
    """

    path: tuple[str, ...]
    line: int
    value: str = ""

    @property
    def dotted(self) -> str:
        """The path as people write it."""
        return ".".join(self.path)


def text_fields(text: str) -> list[TextField]:
    """Return the fields in the order of the text; of a text with a wrong form, those before that.

    >>> [(f.dotted, f.line) for f in text_fields('''name: "a"  # not b: 1
    ... input [ { name: "x" }, {
    ...   dims: [1, 2] } ]''')]
    [('name', 1), ('input', 2), ('input.name', 2), ('input.dims', 3)]
    """
    found: list[TextField] = []
    stack: list[str] = []
    last = ""
    is_value = False  # after `name:` a word is a value
    in_list = False
    for kind, word, line in _tokens(text):
        match kind:
            case "word" if (is_value or in_list) and found:
                found[-1] = found[-1]._replace(value=word)
                is_value = False
            case "word":
                last = word
                found.append(TextField((*stack, word), line))
            case "text":
                is_value = False
            case "open":
                stack.append(last)
                is_value = in_list = False
            case "close":
                if not stack:
                    return found
                last = stack.pop()
            case _ if word == ":":
                is_value = True
            case _:
                in_list, is_value = word == "[", False
    return found


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    line, end = 1, 0
    while (match := _TOKEN.match(text, end)) is not None:
        end = match.end()
        kind = match.lastgroup
        if kind == "line":
            line += 1
        elif kind is not None and kind != "skip":
            yield kind, match[0], line
