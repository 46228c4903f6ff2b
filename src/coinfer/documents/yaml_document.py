"""YamlDocument: the data of a YAML file, with the line of every field."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml

from coinfer.documents.fields import Loc, dotted
from coinfer.documents.raw import MOST_DIGITS
from coinfer.errors import ScenarioError
from coinfer.units import format_bytes

__all__ = ["MOST_TEXT_BYTES", "YamlDocument"]

MOST_TEXT_BYTES = 2**23
"""Of a document: far more than people write, and what is parsed in minutes."""


_MOST_VALUES = 1_000_000
"""In a document, those that aliases stand for included."""

_TEXT = "tag:yaml.org,2002:str"
_WHOLE = "tag:yaml.org,2002:int"
_NUMBERS = frozenset({_WHOLE, "tag:yaml.org,2002:float"})
_MERGE = "tag:yaml.org,2002:merge"
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+")


class YamlDocument:
    """Parsed data and where each part of it stands.

    Attributes:
        data: Plain mappings, lists and scalars.
        origin: What errors call the file.
    """

    def __init__(self, data: Any, root: yaml.Node, origin: str) -> None:
        self.data = data
        self.origin = origin
        self._root = root

    @classmethod
    def parse(cls, text: str, *, origin: str, kind: str = "a scenario") -> YamlDocument:
        """Parse one document; `kind` says what an empty one should describe.

        Raises:
            ScenarioError: not YAML, empty, several documents, a field that is given twice or
                whose name is neither text nor a whole number, or a number that YAML reads as
                another one.
        """
        if len(text) > MOST_TEXT_BYTES:
            raise ScenarioError(
                f"{origin}: it has more than {format_bytes(MOST_TEXT_BYTES)}, the most that is read"
            )
        try:
            loader = yaml.SafeLoader(text)
            try:
                root = loader.get_single_node()
                if root is None:
                    raise ScenarioError(f"{origin}:1: the file is empty; describe {kind}")
                _check_aliases(root, origin)
                _check(root, origin, (), set())
                return cls(loader.construct_document(root), root, origin)
            finally:
                loader.dispose()
        except yaml.YAMLError as error:
            raise ScenarioError(_syntax_message(error, origin)) from error
        except RecursionError as error:
            raise ScenarioError(f"{origin}: not valid YAML: it nests too deeply") from error
        except ValueError as error:  # raised by scalars like the date 2026-13-45
            raise ScenarioError(f"{origin}: not valid YAML: {error}") from error

    def line_of(self, loc: Loc) -> int:
        """Find the line, from 1, of a field; of its nearest parent if it is not there."""
        node, line = self._root, self._root.start_mark.line
        for part in loc:
            found = _child(node, part)
            if found is None:
                break
            node, line = found
        return int(line) + 1

    def written_at(self, loc: Loc) -> str | None:
        """Return a scalar as it is written, without quotes; None if none is there."""
        node = self._root
        for part in loc:
            found = _child(node, part)
            if found is None:
                return None
            node = found[0]
        return str(node.value) if isinstance(node, yaml.ScalarNode) else None

    def value_at(self, loc: Loc) -> Any:
        """Look a field's value up; None if it is not there."""
        value = self.data
        for part in loc:
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return None
        return value


def _child(node: yaml.Node, part: str | int) -> tuple[yaml.Node, int] | None:
    if isinstance(node, yaml.SequenceNode):
        if isinstance(part, int) and part < len(node.value):
            item = node.value[part]
            return item, item.start_mark.line
        return None
    if isinstance(node, yaml.MappingNode):
        # Search from the end: fields merged in by `<<` stand before the mapping's own.
        for key, value in reversed(node.value):
            if key.value == str(part):
                return value, key.start_mark.line
    return None


def _check_aliases(root: yaml.Node, origin: str) -> None:
    """Refuse a few lines whose aliases stand for more than any memory holds, or for themselves."""
    counts: dict[int, int] = {}

    def count(node: yaml.Node) -> int:
        if isinstance(node, yaml.ScalarNode):
            return 1
        known = counts.get(id(node))
        if known is None:
            counts[id(node)] = 0  # met again before it is counted, it holds itself
            inner = node.value
            if isinstance(node, yaml.MappingNode):
                inner = (each for pair in node.value for each in pair)
            known = counts[id(node)] = 1 + sum(map(count, inner))
        elif not known:
            line = node.start_mark.line + 1
            raise ScenarioError(f"{origin}:{line}: what the alias stands for holds the alias")
        return known

    if count(root) > _MOST_VALUES:
        raise ScenarioError(
            f"{origin}: it has more than {_MOST_VALUES:,} values, with those that its aliases "
            f"stand for; that is the most that is read"
        )


def _check(node: yaml.Node, origin: str, loc: Loc, seen: set[int]) -> None:
    """Refuse what PyYAML lets pass and reads otherwise than a person, wherever it stands below."""
    if isinstance(node, yaml.ScalarNode):
        _check_text(node, origin, loc)
        _check_number(node, origin, loc)
    elif id(node) not in seen:
        seen.add(id(node))
        children: Iterable[tuple[str | int, yaml.Node]] = enumerate(node.value)
        if isinstance(node, yaml.MappingNode):
            _check_keys(node, origin)
            children = ((str(key.value), value) for key, value in node.value)
        for part, child in children:
            _check(child, origin, (*loc, part), seen)


def _check_keys(node: yaml.MappingNode, origin: str) -> None:
    """Refuse what PyYAML lets pass: of two equal keys it keeps the last; `on` becomes `True`."""
    lines: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if key.tag == _MERGE:
            continue
        if key.tag == _WHOLE and not _is_misread(key.value):
            key.tag = _TEXT  # {48: 3} is a name as it is written; what it means, its reader knows
        if key.tag != _TEXT:
            written = key.value if isinstance(key, yaml.ScalarNode) else "a collection"
            raise ScenarioError(
                f"{origin}:{line}: {written}: a field's name must be text; put it in quotes"
            )
        _check_text(key, origin, ())
        if key.value in lines:
            raise ScenarioError(
                f"{origin}:{line}: {key.value}: is given twice, first in line "
                f"{lines[key.value]}; remove one"
            )
        lines[key.value] = line


def _check_text(node: yaml.ScalarNode, origin: str, loc: Loc) -> None:
    """Refuse what no name and no path can hold, whatever reads it later."""
    if "\0" in node.value:
        where = f"{dotted(loc)}: " if loc else ""
        raise ScenarioError(
            f"{origin}:{node.start_mark.line + 1}: {where}{node.value!r} holds a null character; "
            "remove it"
        )


def _is_misread(text: str) -> bool:
    return ":" in text or _LEADING_ZERO.fullmatch(text) is not None


def _check_number(node: yaml.ScalarNode, origin: str, loc: Loc) -> None:
    """Refuse a number that YAML 1.1 reads in another base than a person does.

    Digits may be grouped by underscores, and `0x` and `0b` say what they are.
    """
    text = node.value
    if node.tag not in _NUMBERS:
        return
    where = f"{dotted(loc)}: " if loc else ""
    if node.tag == _WHOLE and len(text) > MOST_DIGITS:
        raise ScenarioError(
            f"{origin}:{node.start_mark.line + 1}: {where}a number has {len(text)} digits; at most "
            f"{MOST_DIGITS} are read"
        )
    if not _is_misread(text):
        return
    raise ScenarioError(
        f"{origin}:{node.start_mark.line + 1}: {where}{text} is a number in base "
        f"{60 if ':' in text else 8} in YAML; write a plain number, or put it in quotes if it is "
        "text"
    )


def _syntax_message(error: yaml.YAMLError, origin: str) -> str:
    if not isinstance(error, yaml.MarkedYAMLError):
        return f"{origin}: not valid YAML: {error}"
    mark = error.problem_mark or error.context_mark
    where = f":{mark.line + 1}" if mark else ""
    what = error.problem or error.context or "cannot be parsed"
    return f"{origin}{where}: not valid YAML: {what}; check indentation, colons and brackets"
