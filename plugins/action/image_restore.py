# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's end of a restore or a comparison: serves an image from the store to the laptop."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, ClassVar

from ansible_collections.fleet.imaging.plugins.module_utils.arguments import RESTORE_ARGUMENTS
from ansible_collections.fleet.imaging.plugins.module_utils.disk_state import DISK_STATES, UNKNOWN, UNTOUCHED
from ansible_collections.fleet.imaging.plugins.module_utils.engine.status import Status
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.serving.server import serve
from ansible_collections.fleet.imaging.plugins.module_utils.serving.stored import StoredSource
from ansible_collections.fleet.imaging.plugins.module_utils.stream.link import Link
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.meter import Meter
from ansible_collections.fleet.imaging.plugins.plugin_utils.relay.joining import (
    make_participant,
    network_of,
    passes_on,
    shared_ip,
)
from ansible_collections.fleet.imaging.plugins.plugin_utils.relay.participant import Address, Participant
from ansible_collections.fleet.imaging.plugins.plugin_utils.relay.upstreams import Upstreams
from ansible_collections.fleet.imaging.plugins.plugin_utils.shared_disk import SharedDisk, SharedSource, Sharing
from ansible_collections.fleet.imaging.plugins.plugin_utils.stored_image import StoredImage
from ansible_collections.fleet.imaging.plugins.plugin_utils.stores.registry import open_store
from ansible_collections.fleet.imaging.plugins.plugin_utils.transfer_action import MEASURED, STATUS, TransferAction
from ansible_collections.fleet.imaging.plugins.plugin_utils.transports.transport import Transport

DIFF = {"type": "dict", "contains": {"before": {"type": "str"}, "after": {"type": "str"}}}
"""The field that Ansible shows with ``--diff``."""


class ActionModule(TransferAction):
    """Action plugin of M(fleet.imaging.image_restore)."""

    ARGUMENTS: ClassVar[dict[str, Any]] = RESTORE_ARGUMENTS
    ADDED: ClassVar[frozenset[str]] = MEASURED | {
        "image",
        "sent_bytes",
        "stored_bytes",
        "ratio",
        "seconds",
        "throughput",
        "left",
        "slow",
    }
    UNDOCUMENTED: ClassVar[dict[str, Any]] = {"status": STATUS, "diff": DIFF}

    _source: StoredSource | SharedSource | None = None
    _participant: Participant | None = None
    _ip = ""
    """Where other laptops reach this one, if it takes part in a relay: found once, because a link may be made again while no name is resolved."""

    def facts_of_failure(self) -> dict[str, Any]:
        """Return the state of the disk and where chunks came from, as far as the controller knows it."""
        may_be_written = self._source is not None and self._source.described and not self._task.check_mode
        relayed = self._participant.upstreams.facts(None) if self._participant else {}
        known = {"sent_bytes": self.running.sent if self.running else 0, **relayed}
        return {
            "disk_state": UNKNOWN if may_be_written else UNTOUCHED,
            **{name: value for name, value in known.items() if value},
        }

    def sharing(self, task_vars: dict[str, Any]) -> int:
        """Return how many laptops share the controller's network: one, if they take the image from one another."""
        relayed = self._participant is not None and not self._participant.upstreams.unreachable
        return 1 if relayed else super().sharing(task_vars)

    @contextlib.contextmanager
    def _relay(
        self,
        arguments: dict[str, Any],
        task_vars: dict[str, Any],
        image_id: bytes,
        warn: Callable[[str], object],
        origin: Address | None = None,
    ) -> Iterator[Participant | None]:
        """Take part in the relay of this run, if laptops pass the image on to one another. ``origin`` is as of Participant."""
        # One laptop alone would only keep what nobody takes.
        several = origin is not None or len(task_vars["ansible_play_hosts_all"]) > 1
        possible = passes_on(arguments) and not self._task.check_mode and several
        ip = shared_ip(self.address()) if possible else None
        if ip is None:
            yield None
            return
        self._ip = ip
        participant = self._participant = make_participant(str(task_vars["inventory_hostname"]), image_id, warn, origin)
        try:
            yield participant
        finally:
            if participant is not None:
                participant.leave()

    def _on_progress(
        self, link: Link, meter: Meter, host: str, site: str, relay: Participant | None
    ) -> Callable[[bytes], object]:
        """Return what hears of the progress of a laptop at a site, whose name is empty where the user gives none."""
        if relay is None or self.running is None:
            return meter.update
        site = site or network_of(self._ip, self.running.networks)
        place = Address(host=host, ip=self._ip, port=self.running.port, site=site)
        relay.attach(link)

        def on_progress(report: bytes) -> None:
            meter.update(report)
            relay.progress(link, Status.unpack(report), place)

        return on_progress

    def transfer(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Restore or, in check mode, compare; raises ImagingError."""
        image = _open(arguments, self._display.display)
        wanted, found = arguments["root_digest"], image.root_digest.hex()
        if found and wanted not in ("", found):
            raise ImagingError(
                f"The image {arguments['image']} was replaced since it was chosen: its root digest was {wanted} and is now {found}. "
                "Nothing was written. Run again, so that all laptops of a run go by the same image."
            )
        # A comparison takes next to nothing of the image.
        location = None if self._task.check_mode else image.location()
        ticket = replace(self.ticket(arguments, task_vars, found or wanted), store=location)
        warnings: list[str] = []

        def reach(sharing: Sharing) -> Transport:
            return self.transport_to(sharing.host, sharing.address, sharing.way, task_vars, ticket.timeouts)

        with (
            image.source(ticket.host, ticket.timeouts, reach) as source,
            self._relay(arguments, task_vars, image.image_id, warnings.append, image.origin) as relay,
        ):
            self._source = source
            meter = Meter(source.watches, lambda: source.frames_sent, frames=image.max_sent)
            ticket = replace(ticket, relay=relay is not None)

            def conversation(link: Link) -> None:
                if isinstance(source, SharedSource):
                    source.attach(link)
                serve(link, source, self._on_progress(link, meter, ticket.host, arguments["site"], relay))

            result, transfer = self.run_transfer(arguments, ticket, task_vars, conversation, lambda: meter.mark, meter)
        if warnings:
            result["warnings"] = [*result.get("warnings", ()), *warnings]
        if result.get("failed"):
            said = result.pop("disk_state", None)
            return dict(result, disk_state=said) if said in DISK_STATES else result
        seconds = result["write_seconds"] + result["compare_seconds"]
        return dict(
            result,
            **(self._participant.upstreams if self._participant else Upstreams()).facts(result.get("taken_from")),
            **self.findings(result, arguments, task_vars, meter),
            image=arguments["image"],
            sent_bytes=transfer.sent,
            **image.facts(result["used_bytes"]),
            seconds=round(seconds, 3),
            throughput=int(result["used_bytes"] / ((result["write_seconds"] or seconds) or 1)),
        )


def _open(arguments: dict[str, Any], say: Callable[[str], object]) -> StoredImage | SharedDisk:
    """Return the image in the store or, if a laptop shares its disk instead, that disk; raises ImagingError."""
    name = arguments["image"]
    if arguments["shared"]:
        return SharedDisk.load(name)
    store = open_store(arguments, say)
    return StoredImage(store, name, store.open(name))
