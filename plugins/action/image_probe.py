# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's end of a probe: measures link and store, and forecasts."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any, ClassVar

from ansible_collections.fleet.imaging.plugins.module_utils.arguments import (
    CAPTURE,
    PROBE_ARGUMENTS,
    RESTORE,
)
from ansible_collections.fleet.imaging.plugins.module_utils.disk.raw_io import FILE_ALIGNMENT, spans
from ansible_collections.fleet.imaging.plugins.module_utils.engine.level import parse_level
from ansible_collections.fleet.imaging.plugins.module_utils.engine.look import (
    FIRST_VERDICT,
    MOST_SAMPLES,
    SAMPLED_SHARE,
)
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.image.index import Row
from ansible_collections.fleet.imaging.plugins.module_utils.image.reader import ImageReader
from ansible_collections.fleet.imaging.plugins.module_utils.image.record import FIELDS, ZERO, unpack_ranges
from ansible_collections.fleet.imaging.plugins.module_utils.stream.link import HEAD, TAG_SIZE, Link, LinkError
from ansible_collections.fleet.imaging.plugins.module_utils.stream.probe import (
    ZONES,
    Carried,
    Piece,
    ask_to_measure,
    end_probe,
    measure_from_laptop,
    measure_to_laptop,
    random_pieces,
)
from ansible_collections.fleet.imaging.plugins.plugin_utils.forecast import (
    ETHERNET_SHARE,
    WRITE_SHARE,
    CaptureWork,
    Controller,
    Forecast,
    Machine,
    RestoreWork,
    for_all,
    forecast_capture,
    forecast_restore,
)
from ansible_collections.fleet.imaging.plugins.plugin_utils.own_link import OwnLink, own_link
from ansible_collections.fleet.imaging.plugins.plugin_utils.store import ImageStore
from ansible_collections.fleet.imaging.plugins.plugin_utils.store_speed import StoreSpeed, free_memory, measure_store
from ansible_collections.fleet.imaging.plugins.plugin_utils.transfer_action import TransferAction

AMOUNT = 64 << 20
SECONDS = 3.0
"""So much is sent each way, or for so long, whichever comes first."""

FRAMES = 32 << 20
"""Bytes of the image's frames that are sent, over and over."""

MOST_LINKS = 3
"""A link that broke so often can't be measured."""

NOTHING_COMPRESSED: dict[str, Any] = {"level": None, "chunks": 0, "frame_bytes": 0, "rate": 0.0}
"""As the laptop says it of each level."""

MEASURED_BY_LAPTOP: dict[str, Any] = {
    "used_by": {"type": "str"},
    **{name: {"type": "int"} for name in ("used_chunks", "chunk_size", "processors", "read_bytes")},
    **{
        name: {"type": "float"}
        for name in ("map_seconds", "hash_rate", "send_cpu", "receive_cpu", "read_cpu", "read_rate")
    },
    "decompress_rate": {"type": "float", "returned": "where it was measured"},
    "read_rates": {
        "type": "dict",
        "contains": {zone: {"type": "float", "returned": "where it was measured"} for zone in ZONES},
    },
    "compressed": {
        "type": "list",
        "elements": "dict",
        "contains": {
            "level": {"type": "int"},
            "chunks": {"type": "int"},
            "frame_bytes": {"type": "int"},
            "rate": {"type": "float"},
        },
    },
}
"""What the module says beside what it documents, in the form of its RETURN (``laptop.probe.Probed``)."""

RECORD_OVERHEAD = HEAD.size + FIELDS.size + TAG_SIZE
GUARD_CHUNKS = 2
"""The first and the last chunk of a disk are looked at in any case."""


class LinkProbe:
    """Measures the link, over as many as it takes."""

    def __init__(self, address: str, pieces: list[Piece]) -> None:
        self._address = address
        self._pieces = pieces
        self._links = 0
        self.steps = 0
        self.from_laptop: Carried
        self.to_laptop: Carried
        self.ended = 0.0
        """When everything was measured."""

    def progress(self) -> int:
        """Grows with every step that is done."""
        return self.steps

    def converse(self, link: Link) -> None:
        """Have everything measured that is not yet; raises LinkError, PeerEnded, ImagingError."""
        self._links += 1
        try:
            ask_to_measure(link)
            self.steps = max(1, self.steps)
            self.from_laptop = measure_from_laptop(link, AMOUNT, SECONDS)
            self.to_laptop = measure_to_laptop(link, self._pieces, AMOUNT, SECONDS)
            self.steps = 2
            end_probe(link)
        except LinkError as error:
            if self._links >= MOST_LINKS:
                raise ImagingError(
                    f"The link to {self._address} broke {self._links} times while it was measured, so there is no forecast, and no transfer would "
                    f"get far. The last failure: {error} Look at the cable, the switch and the port, then run again."
                ) from error
            raise
        self.ended = time.monotonic()


@dataclass(frozen=True)
class ImageWork:
    """What restoring an image comes to, in bytes; see ``forecast.RestoreWork``."""

    sent: int
    content: int
    written: int
    zeroed: int
    back: int
    back_content: int
    looked: int


def work_of(image: ImageReader, alignment: int = FILE_ALIGNMENT) -> ImageWork:
    """What an image's index says of the work that it makes."""
    index, geometry = image.index, image.header.geometry
    sent = content = written = zeroed = back_content = 0
    for row in index:
        length = geometry.length(row.chunk)
        size = sum(end - start for start, end in spans(unpack_ranges(row.ranges, length), alignment, length))
        back_content += length
        if row.flags & ZERO:
            zeroed += size
        else:
            sent += row.frame_size + len(row.ranges) + RECORD_OVERHEAD
            content += length
            written += size
    count = len(index)
    chunks = min(count, min(MOST_SAMPLES, count // SAMPLED_SHARE) + FIRST_VERDICT + GUARD_CHUNKS)
    back = written + zeroed
    return ImageWork(
        sent=sent,
        content=content,
        written=written,
        zeroed=zeroed,
        back=back,
        back_content=back_content,
        looked=chunks * back // count if count else 0,
    )


def sample_pieces(image: ImageReader) -> list[Piece]:
    """Frames from all over an image, for the link to carry and the laptop to decompress; random bytes where it has none."""
    rows = [row for row in image.index if not row.flags & ZERO]
    total = sum(row.frame_size for row in rows)
    step = max(1, -(-total // FRAMES))
    pieces = [_piece(image, row) for row in rows[step // 2 :: step]]
    return pieces or random_pieces()


def _piece(image: ImageReader, row: Row) -> Piece:
    record = image.record(row)
    image.check_frame(record)
    return Piece(bytes(record.frame), record.header.content_size)


class ActionModule(TransferAction):
    """Action plugin of M(fleet.imaging.image_probe)."""

    ARGUMENTS: ClassVar[dict[str, Any]] = PROBE_ARGUMENTS
    ADDED: ClassVar[frozenset[str]] = frozenset(
        ("purpose", "image", "sent_bytes", "rates", "ratio", "level", "alone", "together", "all_seconds", "notes")
    )
    UNDOCUMENTED: ClassVar[dict[str, Any]] = MEASURED_BY_LAPTOP

    def transfer(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Measure and forecast; raises ImagingError."""
        for name in ("laptops", "forks"):
            if arguments[name] < 1:
                raise ImagingError(f"{name} is {arguments[name]}, and must be at least 1.")
        parse_level(arguments["compression_level"])
        image = self._image(arguments)
        work = work_of(image) if image is not None else None
        store = measure_store(ImageStore(arguments["store"]).path)
        probe = LinkProbe(self.address(), sample_pieces(image) if image is not None else random_pieces())
        found, _transfer = self.run_transfer(
            arguments, self.ticket(arguments, task_vars), task_vars, probe.converse, probe.progress
        )
        if found.get("failed"):
            return found
        collecting = time.monotonic() - probe.ended
        own = own_link(self.address())
        controller = _controller(probe, store, own)
        machine = _machine(found, NOTHING_COMPRESSED)
        result = dict(_described(found, probe, store, own, machine), purpose=arguments["purpose"])
        notes: list[str] = []
        if work is not None and arguments["purpose"] == RESTORE:
            restoring = RestoreWork(**vars(work))
            at_once = min(arguments["laptops"], arguments["forks"])
            alone = forecast_restore(restoring, machine, controller)
            together = forecast_restore(restoring, machine, controller, at_once)
            notes += _restore_notes(machine, at_once, own, restoring, controller)
            result.update(image=arguments["image"], used_bytes=image.index.used_bytes() if image else 0)
            result.update(
                sent_bytes=restoring.sent, all_seconds=for_all(together.seconds, arguments["laptops"], at_once)
            )
        else:
            tried = [
                (each, forecast_capture(_capture_work(found, each, collecting), _machine(found, each), controller))
                for each in found["compressed"] or [NOTHING_COMPRESSED]
            ]
            compressed, alone = min(tried, key=lambda pair: pair[1].seconds)
            together = alone
            result["rates"]["compress"] = compressed["rate"] and round(compressed["rate"])
            result.update(sent_bytes=_capture_work(found, compressed, collecting).sent, all_seconds=alone.seconds)
            result.update(ratio=_ratio(found, compressed), level=compressed["level"])
            notes += _capture_notes(found, compressed, len(tried))
        notes += _unknown_notes(alone)
        return dict(result, alone=alone.to_json(), together=together.to_json(), notes=notes, changed=False)

    def _image(self, arguments: dict[str, Any]) -> ImageReader | None:
        if arguments["purpose"] == CAPTURE:
            return None
        if not arguments["image"]:
            raise ImagingError("A forecast of a restore needs an image: set image to the name of one (imaging_image).")
        return ImageStore(arguments["store"]).open(arguments["image"])


def _controller(probe: LinkProbe, store: StoreSpeed, own: OwnLink | None) -> Controller:
    return Controller(
        from_laptop=probe.from_laptop.rate,
        to_laptop=probe.to_laptop.rate,
        link=own.mbit * 1e6 / 8 * ETHERNET_SHARE if own else None,
        send_cpu=probe.to_laptop.cpu,
        receive_cpu=probe.from_laptop.cpu,
        processors=os.cpu_count() or 1,
        store_write=store.write,
        store_read=store.read,
        cache=free_memory(),
    )


def _machine(found: dict[str, Any], compressed: dict[str, Any]) -> Machine:
    return Machine(
        read=found["read_rate"],
        rotational=found["rotational"],
        compress=compressed["rate"] or None,
        decompress=found["decompress_rate"],
        hash=found["hash_rate"],
        send_cpu=found["send_cpu"],
        receive_cpu=found["receive_cpu"],
        read_cpu=found["read_cpu"],
        processors=found["processors"],
    )


def _capture_work(found: dict[str, Any], compressed: dict[str, Any], collecting: float) -> CaptureWork:
    """What a capture will do, if all of the disk is like the samples of it."""
    chunks, sampled = found["used_chunks"], compressed["chunks"]
    sent = compressed["frame_bytes"] * chunks // sampled if sampled else 0
    return CaptureWork(
        read=found["read_bytes"],
        content=chunks * found["chunk_size"],
        sent=sent + chunks * RECORD_OVERHEAD,
        fixed=found["map_seconds"] + collecting,
    )


def _ratio(found: dict[str, Any], compressed: dict[str, Any]) -> float | None:
    """Of chunks that are wholly or partly used, as they are hashed and compressed."""
    frames = compressed["frame_bytes"]
    return round(compressed["chunks"] * found["chunk_size"] / frames, 3) if frames else None


def _described(
    found: dict[str, Any], probe: LinkProbe, store: StoreSpeed, own: OwnLink | None, machine: Machine
) -> dict[str, Any]:
    rates = {
        "read": machine.read,
        "write": machine.write,
        "compress": machine.compress,
        "decompress": machine.decompress,
        "hash": machine.hash,
        "from_laptop": probe.from_laptop.rate,
        "to_laptop": probe.to_laptop.rate,
        "controller_link": own.mbit * 1e6 / 8 if own else None,
        "store_write": store.write,
        "store_read": store.read,
    }
    kept = ("device", "disk_size", "used_bytes", "warnings")
    return {
        **{name: found[name] for name in kept if name in found},
        "rotational": found["rotational"],
        "rates": {
            **{name: rate and round(rate) for name, rate in rates.items()},
            "read_zones": {zone: round(rate) for zone, rate in found["read_rates"].items()},
        },
    }


def _capture_notes(found: dict[str, Any], compressed: dict[str, Any], tried: int) -> list[str]:
    sampled = f"{compressed['chunks']} of its {found['used_chunks']} used chunks"
    notes = [f"Assumed: the rest of {found['device']} is like the {sampled} that were compressed."]
    if tried > 1:
        levels = ", ".join(str(each["level"]) for each in found["compressed"])
        notes.append(
            f"The level of compression follows what limits the capture: the forecast is for level {compressed['level']}, the quickest of {levels}."
        )
    if found["used_by"] == "whole":
        notes.append(f"Assumed: all of {found['device']} is captured.")
    return notes


def _restore_notes(
    machine: Machine, at_once: int, own: OwnLink | None, work: RestoreWork, controller: Controller
) -> list[str]:
    if machine.rotational:
        notes = ["Nothing was written. Assumed: the disk, which rotates, is written as fast as it is read."]
    else:
        notes = [
            f"Nothing was written. Assumed: the disk, which does not rotate, is written at {WRITE_SHARE:.0%} of the rate at which it is read."
        ]
    notes.append("Assumed: nothing of the image is on the disk already.")
    if at_once > 1:
        notes.append(f"Assumed: all {at_once} laptops are like this one.")
        if own is None:
            notes.append(
                "The system does not say how fast the controller's own network connection is. Assumed: it carries no more for all laptops together "
                "than was measured with one."
            )
        else:
            notes.append(
                f"They share the controller's {own.interface}, which has {own.mbit} Mbit/s according to the system."
            )
        if work.sent > controller.cache:
            notes.append(
                "The image is larger than the controller's free memory: it is read from the store again for each laptop."
            )
    return notes


def _unknown_notes(forecast: Forecast) -> list[str]:
    return [f"Not measured, and left out: {', '.join(forecast.unknown)}."] if forecast.unknown else []
