# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's end of a probe: runs a trial transfer, and forecasts from it."""

import os
import tempfile
import time
from typing import Any, BinaryIO, ClassVar, cast

from ansible_collections.fleet.imaging.plugins.module_utils.arguments import CAPTURE, PROBE_ARGUMENTS, RESTORE
from ansible_collections.fleet.imaging.plugins.module_utils.engine.trial import TRIAL_SECONDS, WRITE_SHARE
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.image.geometry import DEFAULT_CHUNK_SIZE
from ansible_collections.fleet.imaging.plugins.module_utils.image.reader import ImageReader
from ansible_collections.fleet.imaging.plugins.module_utils.image.record import RecordHeader
from ansible_collections.fleet.imaging.plugins.module_utils.image.staged_file import BUFFER, StagedFile
from ansible_collections.fleet.imaging.plugins.module_utils.quantities import size
from ansible_collections.fleet.imaging.plugins.module_utils.serving.server import serve
from ansible_collections.fleet.imaging.plugins.module_utils.serving.stored import StoredSource
from ansible_collections.fleet.imaging.plugins.plugin_utils.capture_sink import CaptureSink
from ansible_collections.fleet.imaging.plugins.plugin_utils.forecast import (
    ETHERNET_SHARE,
    Forecast,
    forecast,
    measured_rates,
)
from ansible_collections.fleet.imaging.plugins.plugin_utils.nic import Nic, nic_towards
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.limits import NETWORK
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.meter import Meter
from ansible_collections.fleet.imaging.plugins.plugin_utils.relay.joining import passes_on
from ansible_collections.fleet.imaging.plugins.plugin_utils.store_space import nearest_folder, writing_to
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.base import Store
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.registry import open_store
from ansible_collections.fleet.imaging.plugins.plugin_utils.transfer_action import TransferAction

MAX_LATE = 64 << 20
"""Bytes that may come after the end of a trial: the chunks that it has in any case, and what was on its way."""


class UnnamedStagedFile(StagedFile):
    """A place in a store, which need not be there yet, for what becomes no image: nothing remains of it, whatever happens."""

    def __init__(self, store: str) -> None:
        self.path = self.partial = self.leftover = ""
        with writing_to(store):
            self.file = cast(BinaryIO, tempfile.TemporaryFile(dir=nearest_folder(store), buffering=BUFFER))

    def release(self, keep: bool) -> int:
        """Let go, and keep nothing."""
        self.file.close()
        return 0


class TriedCapture(CaptureSink):
    """A capture of which nothing remains, and which the laptop has to end in time: the store does not take a whole disk of it."""

    def __init__(self, store: Store, chunk_size: int = DEFAULT_CHUNK_SIZE) -> None:
        super().__init__(store, UnnamedStagedFile(store.folder), chunk_size=chunk_size)
        self._end = 0.0
        self._late = 0

    def _unpack(self, payload: bytes) -> RecordHeader:
        record, now = super()._unpack(payload), time.monotonic()
        self._end = self._end or now + TRIAL_SECONDS
        if now > self._end:
            self._late += record.frame_size
            if self._late > MAX_LATE:
                raise ImagingError(
                    f"This laptop was to end the trial after {TRIAL_SECONDS:.0f} seconds, and went on sending for {size(MAX_LATE)} more. Boot its "
                    "live system again, and run again."
                )
        return record


class ActionModule(TransferAction):
    """Action plugin of M(fleet.imaging.image_probe)."""

    ARGUMENTS: ClassVar[dict[str, Any]] = PROBE_ARGUMENTS
    ADDED: ClassVar[frozenset[str]] = frozenset(
        ("purpose", "image", "sent_bytes", "rates", "alone", "together", "all_seconds", "all_sent_bytes", "notes")
    )
    UNDOCUMENTED: ClassVar[dict[str, Any]] = {"write_rate": {"type": "float"}}

    def transfer(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Run the trial and forecast; raises ImagingError."""
        for name in ("laptops", "forks"):
            if arguments[name] < 1:
                raise ImagingError(f"{name} is {arguments[name]}, and must be at least 1.")
        store = open_store(arguments, self._display.display)
        if arguments["purpose"] == CAPTURE:
            return self._forecast_capture(arguments, task_vars, store)
        if not arguments["image"]:
            raise ImagingError("A forecast of a restore needs an image: set image to the name of one (imaging_image).")
        image = store.open(arguments["image"])
        source = StoredSource(image)
        meter = Meter(source.watches, lambda: source.frames_sent, frames=image.stored_bytes)
        found, _transfer = self.run_transfer(
            arguments,
            self.ticket(arguments, task_vars),
            task_vars,
            lambda link: serve(link, source, meter.update),
            lambda: meter.mark,
        )
        if found.get("failed"):
            return found
        return _restore_forecast(found, meter, arguments, image, nic_towards(self.address()))

    def _forecast_capture(self, arguments: dict[str, Any], task_vars: dict[str, Any], store: Store) -> dict[str, Any]:
        sink = TriedCapture(store)
        try:
            found, transfer = self.run_transfer(
                arguments, self.ticket(arguments, task_vars), task_vars, sink.converse, sink.progress
            )
            sink.flush()
        finally:
            sink.release()
        if found.get("failed"):
            return found
        return _capture_forecast(found, sink.meter, time.monotonic() - transfer.began)


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
    notes = [f"Assumed: the rest of {found['device']} is like the {size(done)} of it that were tried."]
    if found["used_bytes"] == found["disk_size"]:
        notes.append(f"Assumed: all of {found['device']} is captured.")
    return dict(
        result,
        together=result["alone"],
        all_seconds=result["alone"]["seconds"],
        all_sent_bytes=result["sent_bytes"],
        notes=notes,
    )


def _restore_forecast(
    found: dict[str, Any], meter: Meter, arguments: dict[str, Any], image: ImageReader, own: Nic | None
) -> dict[str, Any]:
    laptops, at_once = arguments["laptops"], min(arguments["laptops"], arguments["forks"])
    alone = forecast(meter, meter.status.seconds if meter.status else 0.0, found)
    result = _result(found, meter, RESTORE, image.stored_bytes, alone)
    result["rates"]["write"] = round(found["write_rate"])
    capacity = own.mbit * 1e6 / 8 * ETHERNET_SHARE if own else 0.0
    link_share = (result["rates"]["link"] or 0) / capacity if own else alone.parts[0][0][NETWORK]
    relay = passes_on(arguments)
    together = alone if relay else alone.shared(at_once, link_share, os.cpu_count() or 1)
    how = "which rotates, is written as fast as it is read"
    if not found["rotational"]:
        how = f"which does not rotate, is written at {WRITE_SHARE:.0%} of the rate at which it is read"
    notes = [f"Nothing was written. Assumed: the disk, {how}.", "Assumed: nothing of the image is on the disk already."]
    if at_once > 1:
        notes.append(f"Assumed: all {at_once} laptops are like this one.")
    if at_once > 1 and relay:
        notes.append(
            "Assumed: they are at one site, reach each other, and pass the image on, so that the controller sends it once."
        )
    elif at_once > 1:
        notes.append(
            f"They share the controller's {own.interface}, which has {own.mbit} Mbit/s according to the system."
            if own
            else "The system does not say how fast the controller's own network connection is. Assumed: it carries no more for all laptops "
            "together than the link to this one does."
        )
        notes.append("Assumed: what one of them has read from the image store, the others have from memory.")
    rounds = -(-laptops // at_once)
    return dict(
        result,
        image=arguments["image"],
        together=together.to_json(),
        all_seconds=round(together.seconds * rounds, 3),
        all_sent_bytes=image.stored_bytes * (rounds if relay else laptops),
        notes=notes,
    )
