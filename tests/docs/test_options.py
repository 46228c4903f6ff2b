"""The options of the command line that pages name are those that it has."""

from __future__ import annotations

import re

import typer.main

from coinfer.cli.app import app
from docs.pages import FOR_CONTRIBUTORS, PAGES

_USE = re.compile(r"(?<![\w./])coinfer (?P<verb>[a-z][a-z-]*)(?P<rest>[^`|;>\n]*)")
_OPTION = re.compile(r"(?<!\S)--?[a-z][a-z0-9-]*")


def options() -> dict[str, set[str]]:
    """Return the options of each verb; those of a group of verbs are of all in it."""
    found: dict[str, set[str]] = {}
    for name, verb in typer.main.get_command(app).commands.items():
        members = [verb, *getattr(verb, "commands", {}).values()]
        names = {o for each in members for p in each.params for o in (*p.opts, *p.secondary_opts)}
        found[name] = names | {"--help"}
    return found


def named() -> list[tuple[str, str, str]]:
    """Return page, verb and option wherever a page has them in one command."""
    return [
        (page.name, use["verb"], option)
        for page in (*PAGES, *FOR_CONTRIBUTORS)
        for use in _USE.finditer(page.read_text(encoding="utf-8"))
        for option in _OPTION.findall(use["rest"])
    ]


def test_every_option_that_a_page_gives_a_verb_is_one_of_its_options() -> None:
    known = options()
    assert len(named()) > 100
    unknown = [each for each in named() if each[1] in known and each[2] not in known[each[1]]]
    assert not unknown
