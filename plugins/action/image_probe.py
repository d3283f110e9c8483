# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's end of a probe: the other end of a trial, by which it forecasts."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any, ClassVar

from ansible_collections.fleet.imaging.plugins.module_utils.arguments import CAPTURE, PROBE_ARGUMENTS, RESTORE
from ansible_collections.fleet.imaging.plugins.module_utils.engine.stopwatch import Stopwatches
from ansible_collections.fleet.imaging.plugins.module_utils.engine.trial import TRIAL_SECONDS, WRITE_SHARE
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.image.header import ImageHeader
from ansible_collections.fleet.imaging.plugins.module_utils.image.reader import ImageReader
from ansible_collections.fleet.imaging.plugins.module_utils.image.record import RecordHeader, largest_frame
from ansible_collections.fleet.imaging.plugins.module_utils.serving.server import serve
from ansible_collections.fleet.imaging.plugins.module_utils.serving.stored import StoredSource
from ansible_collections.fleet.imaging.plugins.module_utils.stream.conversation import (
    ask_header,
    finish,
    receive_index,
    receive_record,
    want,
)
from ansible_collections.fleet.imaging.plugins.module_utils.stream.link import Link, LinkError
from ansible_collections.fleet.imaging.plugins.plugin_utils.forecast import (
    ETHERNET_SHARE,
    Forecast,
    forecast,
    measured_rates,
)
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.limits import NETWORK
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.meter import Meter
from ansible_collections.fleet.imaging.plugins.plugin_utils.shared_resources import OwnLink, free_memory, own_link
from ansible_collections.fleet.imaging.plugins.plugin_utils.store import ImageStore
from ansible_collections.fleet.imaging.plugins.plugin_utils.store_room import nearest_folder, store_error
from ansible_collections.fleet.imaging.plugins.plugin_utils.syncing import Syncing
from ansible_collections.fleet.imaging.plugins.plugin_utils.transfer_action import TransferAction

SETTLED = TRIAL_SECONDS / 2
"""Seconds. What the end of a trial is like, the rest of the transfer is taken to be like."""

MOST_STORED = 256 << 20
"""Bytes of the store that a trial takes; then it writes over them again."""

MOST_LINKS = 3
"""A link that broke so often can't be measured."""

ANSWERED: dict[str, Any] = {
    "used_by": {"type": "str"},
    "used_chunks": {"type": "int"},
    "tried_chunks": {"type": "int"},
    "write_rate": {"type": "float"},
}
"""What the module says beside what it documents, in the form of its RETURN (``laptop.probe.Probed``)."""


class CaptureTrialSink:
    """Writes what a laptop serves into the store, in a file without a name."""

    def __init__(self, store: str) -> None:
        self._store = store
        self._watches = Stopwatches()
        self._next = self._received = 0
        self.meter = Meter(self._watches, lambda: self._received, capturing=True, settled=SETTLED)

    def converse(self, link: Link) -> None:
        """Ask for what is still missing; raises LinkError, PeerEnded, ImagingError."""
        try:
            # No name, or none any more: nothing remains of it, whatever happens.
            with tempfile.TemporaryFile(dir=nearest_folder(self._store)) as file:
                self._receive(link, file)
        except OSError as error:
            raise store_error(self._store, error) from error
        finish(link)

    def _receive(self, link: Link, file: Any) -> None:
        header = ImageHeader.unpack(ask_header(link))
        receive_index(link, 0)
        room = memoryview(bytearray(largest_frame(header.geometry.chunk_size)))
        want(link, [(self._next, header.geometry.chunk_count)])
        watch, began = self._watches.new(), self._received

        def unpack(payload: bytes) -> RecordHeader:
            return RecordHeader.unpack(payload, header.geometry, header.stream)

        with contextlib.closing(Syncing(file.fileno())) as syncing:
            while (record := receive_record(link, unpack, room, heard=self.meter.hear)) is not None:
                frame = room[: record.frame_size]
                watch.busy("receive")
                if record.chunk < self._next:
                    raise ImagingError(f"The laptop sent chunk {record.chunk}, which was not asked for. Run again.")
                if hashlib.sha256(frame).digest() != record.frame_hash:
                    raise LinkError(f"The frame of chunk {record.chunk} arrived damaged.")
                watch.busy("check")
                if file.tell() >= MOST_STORED:
                    file.seek(0)
                file.write(frame)
                self._next = record.chunk + 1
                self._received += record.frame_size
                syncing.wrote(self._received - began)
                watch.busy("store")
        file.flush()
        os.fsync(file.fileno())
        watch.busy("store")


class RestoreTrialSource:
    """Serves an image."""

    def __init__(self, image: ImageReader) -> None:
        self._source = source = StoredSource(image)
        self.meter = Meter(source.watches, lambda: source.frames_sent, frames=image.stored_bytes, settled=SETTLED)

    def converse(self, link: Link) -> None:
        """Serve it to the end of the trial; raises LinkError, PeerEnded, ImagingError."""
        serve(link, self._source, self.meter.hear)


def patiently(address: str, conversation: Callable[[Link], None]) -> Callable[[Link], None]:
    """A conversation that ends with ImagingError when its link broke too often."""
    links = 0

    def converse(link: Link) -> None:
        nonlocal links
        links += 1
        try:
            conversation(link)
        except LinkError as error:
            if links < MOST_LINKS:
                raise
            raise ImagingError(
                f"The link to {address} broke {links} times while it was measured, so there is no forecast, and no transfer would "
                f"get far. The last failure: {error} Look at the cable, the switch and the port, then run again."
            ) from error

    return converse


class ActionModule(TransferAction):
    """Action plugin of M(fleet.imaging.image_probe)."""

    ARGUMENTS: ClassVar[dict[str, Any]] = PROBE_ARGUMENTS
    ADDED: ClassVar[frozenset[str]] = frozenset(
        ("purpose", "image", "sent_bytes", "rates", "ratio", "level", "alone", "together", "all_seconds", "notes")
    )
    UNDOCUMENTED: ClassVar[dict[str, Any]] = ANSWERED

    def transfer(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Try and forecast; raises ImagingError."""
        for name in ("laptops", "forks"):
            if arguments[name] < 1:
                raise ImagingError(f"{name} is {arguments[name]}, and must be at least 1.")
        store = ImageStore(arguments["store"])
        if arguments["purpose"] == CAPTURE:
            sink = CaptureTrialSink(store.path)
            found, elapsed = self._try(arguments, task_vars, sink)
            return found if found.get("failed") else _capture_forecast(found, sink.meter, elapsed)
        if not arguments["image"]:
            raise ImagingError(
                "A restore can only be forecast of an image: set image to the name of one (imaging_image)."
            )
        image = store.open(arguments["image"])
        source = RestoreTrialSource(image)
        found, _elapsed = self._try(arguments, task_vars, source)
        if found.get("failed"):
            return found
        return _restore_forecast(found, source.meter, arguments, image, own_link(self.address()))

    def _try(
        self, arguments: dict[str, Any], task_vars: dict[str, Any], half: CaptureTrialSink | RestoreTrialSource
    ) -> tuple[dict[str, Any], float]:
        """What the laptop says of a trial, and how long all of it took."""
        conversation = patiently(self.address(), half.converse)
        found, transfer = self.run_transfer(
            arguments, self.ticket(task_vars), task_vars, conversation, lambda: half.meter.mark
        )
        return found, time.monotonic() - transfer.began


def _result(found: dict[str, Any], meter: Meter, purpose: str, sent: int, alone: Forecast) -> dict[str, Any]:
    kept = ("device", "disk_size", "rotational", "used_bytes", "warnings")
    return {
        **{name: found[name] for name in kept if name in found},
        "purpose": purpose,
        "sent_bytes": sent,
        "rates": measured_rates(meter, purpose == CAPTURE),
        "alone": alone.to_json(),
        "changed": False,
    }


def _capture_forecast(found: dict[str, Any], meter: Meter, elapsed: float) -> dict[str, Any]:
    alone = forecast(meter, elapsed)
    sent, done = meter.history.last.wire, meter.history.last.done
    result = _result(found, meter, CAPTURE, sent * found["used_bytes"] // max(1, done), alone)
    sampled = f"{found['tried_chunks']} of its {found['used_chunks']} used chunks"
    notes = [f"The rest of {found['device']} is taken to be like the {sampled} that were tried."]
    if found["used_by"] == "whole":
        notes.append(f"All of {found['device']} is taken to be captured.")
    return dict(
        result,
        ratio=round(done / max(1, sent), 3),
        level=meter.status.level if meter.status else None,
        together=result["alone"],
        all_seconds=result["alone"]["seconds"],
        notes=notes,
    )


def _restore_forecast(
    found: dict[str, Any], meter: Meter, arguments: dict[str, Any], image: ImageReader, own: OwnLink | None
) -> dict[str, Any]:
    cached = image.stored_bytes <= free_memory()
    laptops, at_once = arguments["laptops"], min(arguments["laptops"], arguments["forks"])
    alone = forecast(meter, meter.status.seconds if meter.status else 0.0, found)
    result = _result(found, meter, RESTORE, image.stored_bytes, alone)
    result["rates"]["write"] = round(found["write_rate"])
    capacity = own.mbit * 1e6 / 8 * ETHERNET_SHARE if own else 0.0
    link_share = (result["rates"]["link"] or 0) / capacity if own else alone.parts[0][0][NETWORK]
    together = alone.shared(at_once, link_share, os.cpu_count() or 1, cached)
    how = "which rotates, is taken to be written as fast as it is read"
    if not found["rotational"]:
        how = f"which does not rotate, is taken to be written at {WRITE_SHARE:.0%} of the rate at which it is read"
    notes = [f"Nothing was written: the disk, {how}.", "Nothing of the image is taken to be on the disk already."]
    if at_once > 1:
        notes.append(f"All {at_once} laptops at once are taken to be like this one.")
        notes.append(
            f"They share the controller's {own.interface}, which has {own.mbit} Mbit/s by what the system says."
            if own
            else "How fast the controller's own network connection is, the system does not say: it is taken to carry no more for all laptops "
            "together than the link to this one does."
        )
        if not cached:
            notes.append(
                "The image is larger than the controller's free memory: each laptop has it read from the store anew."
            )
    everything = together.seconds * -(-laptops // at_once)
    return dict(
        result, image=arguments["image"], together=together.to_json(), all_seconds=round(everything, 3), notes=notes
    )
