"""Tree mutation: change a tree of mappings and lists, as YAML and JSON hold. Knows no file."""

from __future__ import annotations

import random
from collections.abc import Iterator
from copy import deepcopy
from typing import Any, NamedTuple, TypeAlias

from fuzz.hostile import VALUES

__all__ = ["Tree", "keys_of", "mutate_tree"]

Tree: TypeAlias = Any
_DEEPEST = 60


class _Place(NamedTuple):
    holder: dict[Any, Any] | list[Any]
    key: Any

    @property
    def value(self) -> Tree:
        return self.holder[self.key]

    def put(self, value: Tree) -> None:
        self.holder[self.key] = value


def keys_of(tree: Tree) -> set[str]:
    """Collect the keys of all mappings in a tree."""
    return {place.key for place in _places(tree) if isinstance(place.key, str)}


def mutate_tree(tree: Tree, rng: random.Random, words: list[str]) -> Tree:
    """Return a tree that differs in one to four places; `words` are keys to add or to rename to."""
    tree = deepcopy(tree)
    for _ in range(min(4, 1 + int(rng.expovariate(2.0)))):
        places = list(_places(tree))
        if not places or rng.random() < 0.01:
            return deepcopy(rng.choice(VALUES))
        # Long lists of numbers must not draw all mutations to themselves.
        named = [place for place in places if isinstance(place.holder, dict)]
        place = rng.choice(named if named and rng.random() < 0.8 else places)
        _change(place, places, rng, words)
    return tree


def _places(tree: Tree) -> Iterator[_Place]:
    match tree:
        case dict():
            inner = [_Place(tree, key) for key in tree]
        case list():
            inner = [_Place(tree, index) for index in range(len(tree))]
        case _:
            return
    for place in inner:
        yield place
        yield from _places(place.value)


def _change(place: _Place, places: list[_Place], rng: random.Random, words: list[str]) -> None:
    action = rng.randrange(10)
    if action < 4:
        place.put(deepcopy(rng.choice(VALUES)))
    elif action == 4:
        del place.holder[place.key]
    elif action == 5:
        place.put(deepcopy(rng.choice(places).value))
    elif action == 6:
        place.put(_near(place.value, rng))
    elif action == 7 and isinstance(place.holder, dict):
        place.holder[rng.choice([*words, "x", 1, None, "a b"])] = place.holder.pop(place.key)
    elif action == 8 and isinstance(place.holder, dict):
        place.holder[rng.choice(words)] = deepcopy(rng.choice([*VALUES, place.value]))
    elif isinstance(place.holder, list):
        place.holder.extend([deepcopy(place.value)] * rng.randrange(1, 50))
    else:
        for _ in range(rng.choice((1, 2, _DEEPEST))):
            place.put([place.value] if rng.random() < 0.5 else {"a": place.value})


def _near(value: Tree, rng: random.Random) -> Tree:
    """Return a value that is nearly the same: another sign, size, type or letter."""
    match value:
        case bool():
            return str(value)
        case int() | float():
            return rng.choice((-value, value * 2, value + 1, value / 3, str(value), [value]))
        case str():
            at = rng.randrange(len(value) + 1)
            return value[:at] + rng.choice(("", "0", "-", "e9", " ", "x", "/")) + value[at + 1 :]
        case _:
            return [value]
