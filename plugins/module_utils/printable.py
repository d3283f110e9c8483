# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text from outside, made fit to be shown to a person: the one rule for terminals, logs and reports.

A character that a terminal obeys, that changes the direction of text, or that nobody sees is replaced by its code, as in ``\\x1b`` or
``\\u202e``. Nothing is dropped, and doing it twice changes nothing.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

INVISIBLE = frozenset(
    character
    for first, last in (
        (0x34F, 0x34F),
        (0x115F, 0x1160),
        (0x17B4, 0x17B5),
        (0x180B, 0x180F),
        (0x3164, 0x3164),
        (0xFE00, 0xFE0F),
        (0xFFA0, 0xFFA0),
        (0xE0100, 0xE01EF),
    )
    for character in map(chr, range(first, last + 1))
)
"""Invisible characters that Python calls printable: Default_Ignorable_Code_Point of Unicode's DerivedCoreProperties.txt."""

MARKS_IN_A_ROW = 5
"""Combining marks that a letter may have. More of them cover the lines around; no language needs as many."""

DEEPEST = 32
"""Levels of nesting of a value. What lies deeper is not shown."""


PASSWORD = re.compile("(?<=://)[^/?#]*@")
QUERY = re.compile(r"(://[^?#]*)[?#].*", re.DOTALL)


def without_secrets(url: str) -> str:
    """Return a URL without what may be secret in it: user, password, query and fragment. Other text is returned as it is."""
    return QUERY.sub(r"\1?...", PASSWORD.sub("...@", url))


def printable(text: str) -> str:
    """Return ``text`` as one line, without white space at its ends."""
    return _shown(text.strip(), "")


def printable_lines(text: str) -> str:
    """Return ``text`` with its line feeds and tabs as they are."""
    return _shown(text.replace("\r\n", "\n"), "\n\t")


def printable_all(value: Any, depth: int = 0) -> Any:
    """Return a value as JSON has it, with :func:`printable_lines` of all its strings, keys too."""
    if isinstance(value, str):
        return printable_lines(value)
    if not isinstance(value, (dict, list, tuple)):
        return value
    if depth >= DEEPEST:
        return "..."
    if isinstance(value, dict):
        return {printable_all(key): printable_all(item, depth + 1) for key, item in value.items()}
    return [printable_all(item, depth + 1) for item in value]


def _shown(text: str, kept: str) -> str:
    if text.isascii() and text.isprintable():
        return text
    shown, marks = [], 0
    for character in text:
        kind = unicodedata.category(character)
        marks = marks + 1 if kind in ("Mn", "Me") else 0
        visible = (character.isprintable() and character not in INVISIBLE) or kind == "Zs" or character in kept
        shown.append(character if visible and marks <= MARKS_IN_A_ROW else _code(character))
    return "".join(shown)


def _code(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
