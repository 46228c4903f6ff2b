"""Misread: numbers that YAML 1.1 reads in another base than a person does. Knows no document."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["misread"]

_LEADING_ZERO: Final = re.compile(r"[-+]?0[0-9_]+")


def misread(text: str) -> str | None:
    """Say what is wrong with a number as it is written, if YAML reads it in another base.

    Digits may be grouped by underscores, and `0x` and `0b` say what they are.

    >>> misread("1:30")
    '1:30 is a number in base 60 in YAML; write a plain number, or put it in quotes if it is text'
    >>> misread("1_000"), misread("0.5"), misread("0x1f")
    (None, None, None)
    """
    if ":" in text:
        base = 60
    elif _LEADING_ZERO.fullmatch(text):
        base = 8
    else:
        return None
    return (
        f"{text} is a number in base {base} in YAML; write a plain number, or put it in quotes if "
        "it is text"
    )
