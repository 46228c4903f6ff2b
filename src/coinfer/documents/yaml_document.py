"""YamlDocument: the data of a YAML file, with the line of every field."""

from __future__ import annotations

from typing import Any

import yaml

from coinfer.documents.fields import Loc, dotted
from coinfer.documents.misread import misread
from coinfer.errors import ScenarioError

__all__ = ["YamlDocument"]

_TEXT = "tag:yaml.org,2002:str"
_WHOLE = "tag:yaml.org,2002:int"
_NUMBERS = frozenset({_WHOLE, "tag:yaml.org,2002:float"})
_MERGE = "tag:yaml.org,2002:merge"


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
        try:
            loader = yaml.SafeLoader(text)
            try:
                root = loader.get_single_node()
                if root is None:
                    raise ScenarioError(f"{origin}:1: the file is empty; describe {kind}")
                _check_keys(root, origin, set())
                _check_numbers(root, origin, (), set())
                return cls(loader.construct_document(root), root, origin)
            finally:
                loader.dispose()
        except yaml.YAMLError as error:
            raise ScenarioError(_syntax_message(error, origin)) from error
        except (ValueError, RecursionError) as error:
            # Raised by scalars like the date 2026-13-45, and by absurdly deep nesting.
            what = "a number has too many digits" if "int_max_str_digits" in str(error) else error
            raise ScenarioError(f"{origin}: not valid YAML: {what}") from error

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


def _check_keys(node: yaml.Node, origin: str, seen: set[int]) -> None:
    """Refuse what PyYAML lets pass: of two equal keys it keeps the last; `on` becomes `True`."""
    if id(node) in seen or isinstance(node, yaml.ScalarNode):
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        _check_mapping_keys(node, origin)
    for child in node.value:
        for part in child if isinstance(child, tuple) else (child,):
            _check_keys(part, origin, seen)


def _check_mapping_keys(node: yaml.MappingNode, origin: str) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if key.tag == _MERGE:
            continue
        if key.tag == _WHOLE and misread(key.value) is None:
            key.tag = _TEXT  # {48: 3} is a name as it is written; what it means, its reader knows
        if key.tag != _TEXT:
            written = key.value if isinstance(key, yaml.ScalarNode) else "a collection"
            raise ScenarioError(
                f"{origin}:{line}: {written}: a field's name must be text; put it in quotes"
            )
        if key.value in lines:
            raise ScenarioError(
                f"{origin}:{line}: {key.value}: is given twice, first in line "
                f"{lines[key.value]}; remove one"
            )
        lines[key.value] = line


def _check_numbers(node: yaml.Node, origin: str, loc: Loc, seen: set[int]) -> None:
    """Refuse what is another number in YAML than to a reader."""
    if isinstance(node, yaml.ScalarNode):
        problem = misread(node.value) if node.tag in _NUMBERS else None
        if problem is not None:
            line = node.start_mark.line + 1
            where = f"{dotted(loc)}: " if loc else ""
            raise ScenarioError(f"{origin}:{line}: {where}{problem}")
        return
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            _check_numbers(value, origin, (*loc, str(key.value)), seen)
    else:
        for index, value in enumerate(node.value):
            _check_numbers(value, origin, (*loc, index), seen)


def _syntax_message(error: yaml.YAMLError, origin: str) -> str:
    if not isinstance(error, yaml.MarkedYAMLError):
        return f"{origin}: not valid YAML: {error}"
    mark = error.problem_mark or error.context_mark
    where = f":{mark.line + 1}" if mark else ""
    what = error.problem or error.context or "cannot be parsed"
    return f"{origin}{where}: not valid YAML: {what}; check indentation, colons and brackets"
