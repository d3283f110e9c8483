# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's end of a shared disk: starts the module, takes the disk's description, and ends the module in a later task."""

from __future__ import annotations

import contextlib
import time
from typing import Any, ClassVar

from ansible_collections.fleet.imaging.plugins.module_utils.arguments import ENDED, SHARE_ARGUMENTS
from ansible_collections.fleet.imaging.plugins.module_utils.engine.stopwatch import Stopwatches
from ansible_collections.fleet.imaging.plugins.module_utils.stream.conversation import finish
from ansible_collections.fleet.imaging.plugins.module_utils.stream.link import Link
from ansible_collections.fleet.imaging.plugins.plugin_utils.detached_module import DetachedModule
from ansible_collections.fleet.imaging.plugins.plugin_utils.image_facts import describe
from ansible_collections.fleet.imaging.plugins.plugin_utils.interruption import interruptible
from ansible_collections.fleet.imaging.plugins.plugin_utils.laptop_answer import documented_fields
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.meter import Meter
from ansible_collections.fleet.imaging.plugins.plugin_utils.relay.joining import shared_ip
from ansible_collections.fleet.imaging.plugins.plugin_utils.shared_disk import (
    SharedDisk,
    Sharing,
    ask_description,
    forget,
)
from ansible_collections.fleet.imaging.plugins.plugin_utils.transfer_action import TransferAction


class ActionModule(TransferAction):
    """Action plugin of M(fleet.imaging.image_share)."""

    ARGUMENTS: ClassVar[dict[str, Any]] = SHARE_ARGUMENTS
    ADDED: ClassVar[frozenset[str]] = frozenset(("seconds",))

    def transfer(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Share the disk, or end that; raises ImagingError."""
        host = str(task_vars["inventory_hostname"])
        if self._task.check_mode:
            looked = self.believed(self._execute_module(self._task.action, arguments, task_vars=task_vars))
            return looked if looked.get("failed") else dict(looked, image=_named(looked["image"], host))
        if arguments["state"] == ENDED:
            return self._end(arguments, task_vars, SharedDisk.load(host))
        return self._begin(arguments, task_vars, host)

    def _begin(self, arguments: dict[str, Any], task_vars: dict[str, Any], host: str) -> dict[str, Any]:
        ticket = self.ticket(arguments, task_vars, relay=True)
        module = DetachedModule(self, task_vars, ticket.run_id, ticket.timeouts)
        meter = Meter(Stopwatches(), lambda: 0, capturing=True)
        transfer = self.make_transfer(module, arguments, ticket, lambda: meter.mark)
        described: list[bytes] = []

        def conversation(link: Link) -> None:
            described[:] = ask_description(link, meter.update)

        with interruptible(), self.telling(host, transfer, meter):
            begun = False
            try:
                module.start(self._task.action, {**arguments, "ticket": module.hand_over(ticket)})
                ended = transfer.converse(conversation, then_leave=True)
                if ended:
                    return self.believed(ended)
                address = self.address()
                sharing = Sharing(
                    host=host,
                    address=address,
                    ip=shared_ip(address) or "",
                    port=transfer.port,
                    way={name: arguments[name] for name in ("transport", "ssh_client")},
                    run_id=ticket.run_id,
                    folders=module.folders,
                )
                disk = SharedDisk.of(sharing, *described)
                disk.save()
                begun = True
            finally:
                if not begun:
                    module.stop()
                    module.clean_up()
        return _begun(disk, time.monotonic() - transfer.began)

    def _end(self, arguments: dict[str, Any], task_vars: dict[str, Any], disk: SharedDisk) -> dict[str, Any]:
        ticket = self.ticket(arguments, task_vars)
        module = DetachedModule(self, task_vars, disk.sharing.run_id, ticket.timeouts)
        module.adopt(disk.sharing.folders)
        transfer = self.make_transfer(module, arguments, ticket, lambda: 0)
        with interruptible():
            try:
                return self.believed(transfer.converse(finish))
            except BaseException:
                module.stop()
                raise
            finally:
                module.clean_up()
                with contextlib.suppress(OSError):
                    forget(disk.sharing.host)


def _named(image: dict[str, Any], host: str) -> dict[str, Any]:
    """Add what the laptop does not know: its name in the inventory."""
    return dict(image, name=host, source_host=host)


def _begun(disk: SharedDisk, seconds: float) -> dict[str, Any]:
    said = describe(disk.header, disk.index)
    facts = {
        name: value for name, value in said.items() if name in documented_fields("image_share")["image"]["contains"]
    }
    return {
        "changed": False,
        "image": _named(facts, disk.sharing.host),
        "device": str(disk.header.source.get("device") or ""),
        "disk_size": said["disk_size"],
        "used_bytes": said["used_bytes"],
        "seconds": round(seconds, 3),
    }
