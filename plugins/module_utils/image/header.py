# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The header of an image: a JSON object that describes the captured disk.

It is in the first skippable frame of the file, and is sent first over a link.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Mapping, Sequence

from ..errors import ImagingError
from .geometry import Geometry
from .record import IMAGE_ID_SIZE

FORMAT = "fleet.imaging"
VERSION = 1
MAX_HEADER_SIZE = 1 << 20
"""Bytes. A partition table of 128 entries takes about 30 KiB. As JSON it may take a hundred times as much memory when it is read."""

SHOWN = 80
"""Maximum characters of an invalid value in a message."""

MAX_OFFSET = 1 << 66
"""Bytes. A partition may begin or end beyond the disk, as in tables of disks that were copied onto smaller ones. The limit is
2^54 sectors of up to 4096 bytes."""

EXPECTED = {str: "a text", int: f"a whole number from 0 to {MAX_OFFSET - 1}", list: "a list of objects"}

FIELDS: Mapping[str, Mapping[str, type]] = {
    "": {**dict.fromkeys(("created", "collection_version"), str), "compression_level": int},
    "partition_table": {"label": str, "partitions": list},
    "partition_table.partitions": {},
    "source": {
        **dict.fromkeys(("host", "node", "device", "model", "serial", "wwn", "used_map", "generalization"), str),
        **dict.fromkeys(("partitions", "systems", "findings"), list),
    },
    "source.partitions": {
        **dict.fromkeys(("number", "start", "size"), int),
        **dict.fromkeys(("content", "label"), str),
    },
    "source.systems": dict.fromkeys(("name", "edition", "build", "architecture", "computer_name"), str),
    "source.findings": {},
}
"""The fields of a header that are read, with their types. Other fields are kept unchanged."""


@dataclass(frozen=True)
class ImageHeader:
    """Geometry, partition table (``sfdisk --json``, or None), source and time (RFC 3339, UTC) of an image.

    ``bad_ranges`` are the ranges that could not be read and are zeros in the image: ``start`` and ``end`` in bytes, ``partition`` as text.
    ``image_id`` identifies the image: eight random bytes that each of its records repeats, so records of two images can't be mixed up.
    """

    geometry: Geometry
    image_id: bytes
    created: str
    partition_table: Mapping[str, Any] | None = None
    source: Mapping[str, Any] = field(default_factory=dict)
    collection_version: str = ""
    bad_ranges: Sequence[Mapping[str, Any]] = ()
    compression_level: int | None = None
    """The level of zstd at which all of the image was compressed; None when it is not known to be the same everywhere."""

    def pack(self, room: int = 0) -> bytes:
        """Return the header as JSON in UTF-8, padded with white space to ``room`` bytes for facts that are known only later."""
        packed = json.dumps(
            {
                "format": FORMAT,
                "version": VERSION,
                "disk": self.geometry.to_json(),
                "partition_table": self.partition_table,
                "source": self.source,
                "created": self.created,
                "stream": self.image_id.hex(),
                "collection_version": self.collection_version,
                "bad_ranges": list(self.bad_ranges),
                "compression_level": self.compression_level,
            },
            indent=1,
        ).encode()
        if len(packed) > MAX_HEADER_SIZE:
            raise ImagingError(
                f"The header of this image takes {len(packed)} bytes of at most {MAX_HEADER_SIZE}: its partition table has too many entries."
            )
        return packed.ljust(room)

    @classmethod
    def unpack(cls, data: bytes) -> ImageHeader:
        """Read an untrusted packed header; raises ImagingError."""
        if len(data) > MAX_HEADER_SIZE:
            raise ImagingError(
                f"An image's header of {len(data)} bytes is too long: expected at most {MAX_HEADER_SIZE}."
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
        geometry = Geometry.from_json(disk)
        for place, entry in (("", value), ("partition_table", table or {}), ("source", source)):
            _check_fields(entry, place)
        return cls(
            geometry=geometry,
            image_id=_image_id(value.get("stream")),
            created=value.get("created") or "",
            partition_table=table,
            source=source,
            collection_version=value.get("collection_version") or "",
            bad_ranges=_bad_ranges(value.get("bad_ranges", []), geometry),
            compression_level=value.get("compression_level"),
        )


def _check_fields(entry: Mapping[str, Any], place: str) -> None:
    """Raise ImagingError when a known field has a value of the wrong type; a field may be missing or null."""
    for name, kind in FIELDS[place].items():
        value = entry.get(name)
        if value is None:
            continue
        if kind is int:
            right = is_whole(value) and 0 <= value < MAX_OFFSET
        elif kind is list:
            right = isinstance(value, list) and all(isinstance(each, dict) for each in value)
        else:
            right = isinstance(value, kind)
        if not right:
            shown = repr(value)[:SHOWN] if isinstance(value, (str, float)) else f"a {type(value).__name__}"
            raise ImagingError(f"The image's header gives {shown} as {name}: expected {EXPECTED[kind]}.")
        for each in value if kind is list else ():
            _check_fields(each, f"{place}.{name}")


def is_whole(value: Any) -> bool:
    """Return whether an untrusted value is a whole number, which JSON's true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def _bad_ranges(value: Any, geometry: Geometry) -> list[dict[str, Any]]:
    ranges = []
    for each in value if isinstance(value, list) else [value]:
        entry = each if isinstance(each, dict) else {}
        start, end, partition = entry.get("start", -1), entry.get("end", -1), entry.get("partition", "")
        right = is_whole(start) and is_whole(end) and isinstance(partition, str)
        if not right or not 0 <= start < end <= geometry.disk_size:
            raise ImagingError(
                "The image's header lists a range that could not be read and that does not lie on its disk."
            )
        ranges.append({"start": start, "end": end, "partition": partition})
    return ranges


def _image_id(value: Any) -> bytes:
    try:
        image_id = bytes.fromhex(value)
    except (TypeError, ValueError):
        image_id = b""
    if len(image_id) != IMAGE_ID_SIZE:
        raise ImagingError(
            f"The image's header gives {value!r} as its stream: expected {IMAGE_ID_SIZE} bytes in hexadecimal."
        )
    return image_id
