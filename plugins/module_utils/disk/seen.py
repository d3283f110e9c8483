# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What blkid finds in a partition, as an image's header notes it: type, UUID, label and kind of partition table.

A system finds its partitions by these when it starts, and decides what they belong to.
"""

from __future__ import annotations

import re
from typing import Any, Mapping, TypedDict

from ..errors import ImagingError
from ..printable import printable
from .blkid import Content
from .command import RunCommand

TEXTS = {"type": "TYPE", "uuid": "UUID", "label": "LABEL", "partition_table": "PTTYPE", "stray": "beside"}
"""The fields of a note that are texts, and what they are called in a message: as blkid does, and a signature beside that of the type."""

LONGEST = 1024
"""Characters of a text. blkid's longest, the labels of UDF and HFS+, have fewer than 256."""


class Note(TypedDict):
    """What is noted; the fields are those of ``Content``."""

    type: str
    uuid: str
    label: str
    partition_table: str
    stray: str
    ambivalent: bool


def note(content: Content) -> Note:
    """What is noted of a content."""
    return Note(
        type=_text(content.type),
        uuid=_text(content.uuid),
        label=_text(content.label),
        partition_table=_text(content.partition_table),
        stray=_text(content.stray),
        ambivalent=content.ambivalent,
    )


def _text(said: str) -> str:
    return printable(said)[:LONGEST]


def read_note(value: Any) -> Content:
    """The content that a note is of; raises ImagingError unless it is one that :func:`note` can have made."""
    said = value if isinstance(value, Mapping) else {}
    texts = {name: said.get(name) for name in TEXTS}
    known = {name: printable(text) for name, text in texts.items() if isinstance(text, str) and len(text) <= LONGEST}
    ambivalent = said.get("ambivalent")
    if len(known) < len(TEXTS) or not isinstance(ambivalent, bool):
        raise ImagingError(
            f"The note {str(value)[:200]!r} does not describe a content: expected the texts {', '.join(TEXTS)}, of up to {LONGEST} "
            "characters each, and the boolean ambivalent."
        )
    return Content(ambivalent=ambivalent, **known)


def describe_seen(content: Content) -> str:
    """What a note says, in words."""
    if content.ambivalent:
        return "several things at once"
    words = [f"{key}={getattr(content, name)}" for name, key in TEXTS.items() if getattr(content, name)]
    return " ".join(words) or "nothing"


def contradicts(expected: Content, found: Content) -> bool:
    """Whether a partition has another owner than expected, whatever the versions of blkid.

    Versions differ in the types that they know and in how they write labels, but not in the name of a type that both know.
    """
    more = (found.ambivalent and not expected.ambivalent) or (found.stray and not expected.stray)
    return bool(more) or (bool(expected.type and found.type) and expected.type != found.type)


def blkid_version(run: RunCommand) -> str:
    """The version of libblkid, such as 2.38.1; empty when it can't be determined."""
    try:
        result = run(["blkid", "-V"])
    except ImagingError:
        return ""
    found = re.search(r"libblkid ([0-9A-Za-z.~+-]{1,40})", result.out + result.err)
    return found.group(1) if found else ""
