# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The header of an image: a JSON object that says what the image is of.

Held in the file's first skippable frame, and sent first over a link.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Mapping, Sequence

from ..errors import ImagingError
from .geometry import Geometry
from .record import STREAM_SIZE

FORMAT = "fleet.imaging"
VERSION = 1
LARGEST_HEADER = 1 << 20
"""Bytes. A partition table of 128 entries takes about 30 KiB. As JSON it may take a hundred times as much memory when it is read."""


@dataclass(frozen=True)
class ImageHeader:
    """Geometry, partition table (``sfdisk --json``, or None), source and time (RFC 3339, UTC) of an image.

    ``bad_ranges`` are what could not be read of the disk and is zeros in the image: ``start`` and ``end`` in bytes, ``partition`` in words.
    ``stream`` is eight random bytes that every record of the image repeats, so that records of two images can't be mixed up.
    """

    geometry: Geometry
    stream: bytes
    created: str
    partition_table: Mapping[str, Any] | None = None
    source: Mapping[str, Any] = field(default_factory=dict)
    collection_version: str = ""
    bad_ranges: Sequence[Mapping[str, Any]] = ()

    def pack(self, room: int = 0) -> bytes:
        """The header as JSON in UTF-8, followed by as much white space as makes it ``room`` bytes, for what is known only later."""
        packed = json.dumps(
            {
                "format": FORMAT,
                "version": VERSION,
                "disk": self.geometry.to_json(),
                "partition_table": self.partition_table,
                "source": self.source,
                "created": self.created,
                "stream": self.stream.hex(),
                "collection_version": self.collection_version,
                "bad_ranges": list(self.bad_ranges),
            },
            indent=1,
        ).encode()
        if len(packed) > LARGEST_HEADER:
            raise ImagingError(
                f"The header of this disk's image takes {len(packed)} bytes, and may take {LARGEST_HEADER}: its partition table has too many entries."
            )
        return packed.ljust(room)

    @classmethod
    def unpack(cls, data: bytes) -> ImageHeader:
        """Read :meth:`pack`'s form, trusting none of it; raises ImagingError."""
        if len(data) > LARGEST_HEADER:
            raise ImagingError(
                f"An image's header of {len(data)} bytes is too long: expected at most {LARGEST_HEADER}."
            )
        try:
            value = json.loads(data.decode())
        except (ValueError, RecursionError) as error:
            raise ImagingError(f"The image's header can't be read: {error}.") from error
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise ImagingError("The header is not that of a fleet.imaging image.")
        if value.get("version") != VERSION:
            raise ImagingError(
                f"The image has format version {value.get('version')!r} and this collection reads version {VERSION}: "
                "use the collection it was captured with, or a newer one."
            )
        disk, table, source = value.get("disk"), value.get("partition_table"), value.get("source")
        if not isinstance(disk, dict) or not isinstance(source, dict) or not (table is None or isinstance(table, dict)):
            raise ImagingError("The image's header lacks its disk, partition table or source.")
        return cls(
            Geometry.from_json(disk),
            _stream(value.get("stream")),
            str(value.get("created", "")),
            table,
            source,
            str(value.get("collection_version", "")),
            _bad_ranges(value.get("bad_ranges", [])),
        )


def _bad_ranges(value: Any) -> list[dict[str, Any]]:
    ranges = []
    for each in value if isinstance(value, list) else [value]:
        entry = each if isinstance(each, dict) else {}
        start, end = entry.get("start"), entry.get("end")
        if not all(isinstance(number, int) and not isinstance(number, bool) for number in (start, end)):
            raise ImagingError(f"The image's header gives {each!r} as a range that could not be read.")
        ranges.append({"start": start, "end": end, "partition": str(entry.get("partition", ""))})
    return ranges


def _stream(value: Any) -> bytes:
    try:
        stream = bytes.fromhex(value)
    except (TypeError, ValueError):
        stream = b""
    if len(stream) != STREAM_SIZE:
        raise ImagingError(
            f"The image's header gives {value!r} as its stream: expected {STREAM_SIZE} bytes in hexadecimal."
        )
    return stream
