# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's end of a restore or a comparison: serves an image from the store to the laptop."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any, ClassVar

from ansible_collections.fleet.imaging.plugins.module_utils.disk_state import DISK_STATES, UNKNOWN, UNTOUCHED
from ansible_collections.fleet.imaging.plugins.module_utils.engine.stopwatch import Stopwatches
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.image.reader import ImageReader
from ansible_collections.fleet.imaging.plugins.module_utils.laptop.module import RESTORE_ARGUMENTS
from ansible_collections.fleet.imaging.plugins.module_utils.stream.conversation import serve
from ansible_collections.fleet.imaging.plugins.module_utils.stream.link import Link
from ansible_collections.fleet.imaging.plugins.plugin_utils.progress.meter import Meter
from ansible_collections.fleet.imaging.plugins.plugin_utils.store import ImageStore
from ansible_collections.fleet.imaging.plugins.plugin_utils.transfer_action import MEASURED, STATUS, TransferAction

DIFF = {"type": "dict", "contains": {"before": {"type": "str"}, "after": {"type": "str"}}}
"""What Ansible shows with ``--diff``."""


class StoredSource:
    """Answers the laptop's questions from an image (``stream.conversation.Source``)."""

    def __init__(self, image: ImageReader) -> None:
        self._image = image
        self.watches = Stopwatches()
        self._watch = self.watches.new()
        self._frames_sent = 0
        self.described = False
        """Whether the laptop has the index, without which it writes nothing."""
        self.meter = Meter(self.watches, lambda: self._frames_sent, frames=image.stored_bytes)

    @property
    def chunk_count(self) -> int:
        """Of the whole image."""
        return self._image.header.geometry.chunk_count

    @property
    def largest_known(self) -> int:
        """Zero: a laptop that is restored does not send its own index."""
        return 0

    def header(self) -> bytes:
        """The header as the image has it."""
        return self._image.packed_header

    def index(self) -> bytes:
        """The index as the image has it."""
        self.described = True
        return self._image.packed_index

    def known(self, header: bytes, index: bytes) -> None:
        """Nothing depends on it: the laptop asks for what it lacks."""

    def progress(self, report: bytes) -> None:
        """Learn how far the laptop is."""
        self.meter.hear(report)

    def report(self) -> bytes:
        """Nothing: it is the laptop that reports."""
        return b""

    def records(self, start: int, end: int) -> Generator[tuple[bytes, memoryview], None, None]:
        """The records of the used chunks in [start, end), as the image has them."""
        watch = self._watch
        watch.restart()
        for row in self._image.index.rows_between(start, end):
            record = self._image.record(row)
            watch.busy("read store")
            yield record.header.pack(), record.frame
            self._frames_sent += len(record.frame)
            watch.busy("send")

    def conclude(self) -> Iterator[bytes]:
        """Nothing: an image does not change while it is read."""
        return iter(())

    def check(self, chunk: int) -> None:
        """Raise BadImage when the image's own copy of a chunk is damaged."""
        row = self._image.index.find(chunk)
        if row is not None:
            self._image.check_frame(self._image.record(row))


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
    }
    UNDOCUMENTED: ClassVar[dict[str, Any]] = {"status": STATUS, "diff": DIFF}

    _source: StoredSource | None = None

    def facts_of_failure(self) -> dict[str, Any]:
        """What the disk is, as far as this end can tell."""
        may_be_written = self._source is not None and self._source.described and not self._task.check_mode
        return {"disk_state": UNKNOWN if may_be_written else UNTOUCHED}

    def transfer(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Restore or, in check mode, compare; raises ImagingError."""
        image = ImageStore(arguments["store"]).open(arguments["image"])
        wanted, found = arguments["root_digest"], image.root_digest.hex()
        if wanted not in ("", found):
            raise ImagingError(
                f"The image {arguments['image']} was replaced since it was chosen: its root digest was {wanted} and is now {found}. "
                "Nothing was written. Run again, so that all laptops of a run go by the same image."
            )
        source = self._source = StoredSource(image)
        ticket = self.ticket(task_vars, found)

        def conversation(link: Link) -> None:
            serve(link, source)

        meter = source.meter
        result, transfer = self.run_transfer(arguments, ticket, task_vars, conversation, lambda: meter.mark, meter)
        if result.get("failed"):
            said = result.pop("disk_state", None)
            return dict(result, disk_state=said) if said in DISK_STATES else result
        seconds = result["write_seconds"] + result["compare_seconds"]
        return dict(
            result,
            **self.findings(result, arguments, task_vars, meter),
            image=arguments["image"],
            sent_bytes=transfer.sent,
            stored_bytes=image.stored_bytes,
            ratio=round(result["used_bytes"] / image.stored_bytes, 3),
            seconds=round(seconds, 3),
            throughput=int(result["used_bytes"] / ((result["write_seconds"] or seconds) or 1)),
        )
