# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The facts about a partition that an image's header records: the type, UUID, label and kind of partition table that blkid finds.

A system uses them when it starts, to find its partitions and to decide what they belong to.
"""

from __future__ import annotations

import re
from typing import Any, Mapping, TypedDict

from ..errors import ImagingError
from ..printable import printable
from .blkid import Content
from .command import RunCommand

TEXTS = {"type": "TYPE", "uuid": "UUID", "label": "LABEL", "partition_table": "PTTYPE", "stray": "beside"}
"""The text fields, and their names in messages: blkid's, or "beside" for a stray signature."""

MAX_TEXT_LENGTH = 1024
"""Maximum characters of a text. The longest texts of blkid, the labels of UDF and HFS+, have fewer than 256."""


class BlkidFacts(TypedDict):
    """The recorded facts, in the fields of ``Content``."""

    type: str
    uuid: str
    label: str
    partition_table: str
    stray: str
    ambivalent: bool


def facts_of(content: Content) -> BlkidFacts:
    """Return the facts to record about a content."""
    texts = {name: printable(getattr(content, name))[:MAX_TEXT_LENGTH] for name in TEXTS}
    return BlkidFacts(**texts, ambivalent=content.ambivalent)  # type: ignore[typeddict-item, no-any-return]


def parse_facts(value: Any) -> Content:
    """Return the content from recorded facts; raises ImagingError unless :func:`facts_of` could have made them."""
    said = value if isinstance(value, Mapping) else {}
    texts = {name: said.get(name) for name in TEXTS}
    known = {
        name: printable(text) for name, text in texts.items() if isinstance(text, str) and len(text) <= MAX_TEXT_LENGTH
    }
    ambivalent = said.get("ambivalent")
    if len(known) < len(TEXTS) or not isinstance(ambivalent, bool):
        raise ImagingError(
            f"The note {str(value)[:200]!r} does not describe a content: expected the texts {', '.join(TEXTS)}, of up to {MAX_TEXT_LENGTH} "
            "characters each, and the boolean ambivalent."
        )
    return Content(ambivalent=ambivalent, **known)


def describe_content(content: Content) -> str:
    """Return a text that describes a content."""
    if content.ambivalent:
        return "several things at once"
    words = [f"{key}={getattr(content, name)}" for name, key in TEXTS.items() if getattr(content, name)]
    return " ".join(words) or "nothing"


def contradicts(expected: Content, found: Content) -> bool:
    """Return whether the content has another owner than expected, independent of the version of blkid.

    Versions know different types and write labels differently, but a type that both know has the same name in both.
    """
    more = (found.ambivalent and not expected.ambivalent) or (found.stray and not expected.stray)
    return bool(more) or (bool(expected.type and found.type) and expected.type != found.type)


def blkid_version(run: RunCommand) -> str:
    """Return the version of libblkid, such as 2.38.1; empty when it can't be determined."""
    try:
        result = run(["blkid", "-V"])
    except ImagingError:
        return ""
    found = re.search(r"libblkid ([0-9A-Za-z.~+-]{1,40})", result.out + result.err)
    return found.group(1) if found else ""
