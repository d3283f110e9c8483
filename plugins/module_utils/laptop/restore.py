# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The laptop's half of a restore or a comparison: learns what the disk is to hold, fetches it, writes it, reads it back."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Any, Mapping

from ..disk.command import RunCommand
from ..engine.restore import DamagedFrame, Restore
from ..engine.scan import Scan
from ..engine.stopwatch import Stopwatches
from ..errors import ImagingError
from ..image.header import ImageHeader
from ..image.index import Index
from ..image.record import RecordHeader
from ..stream.conversation import ask_description, damaged, finish, receive_record, want
from ..stream.link import Link, LinkError
from ..zstd import Zstd
from .held_disk import HeldDisk
from .session import Session

DAMAGED_LIMIT = 3
"""How often the same chunk may arrive damaged before a broken link is no longer believed."""

RANGES_PER_REQUEST = 4096


@dataclass(frozen=True)
class RestoreRequest:
    """What is asked of this laptop. With ``write`` false the disk is only compared; ``host`` is this laptop's name."""

    device: str
    root_digest: bytes
    expect: Mapping[str, Any]
    write: bool
    read_back: bool
    host: str = ""


class TargetDisk(HeldDisk):
    """A disk held for writing (or for comparing), of which nothing was touched yet."""

    def __init__(self, run: RunCommand, request: RestoreRequest) -> None:
        super().__init__(run, request.device, request.expect, writable=request.write)
        self._request = request

    def check_fits(self, header: ImageHeader) -> None:
        """Raise ImagingError when the image can't be this disk's content, or was taken from this very disk."""
        geometry, source, path = header.geometry, header.source, self.raw.path
        if self.raw.size < geometry.disk_size:
            raise ImagingError(
                f"{path} has {self.raw.size} bytes and the image's disk has {geometry.disk_size}: {geometry.disk_size - self.raw.size} bytes too "
                "few. Nothing was written. Use a disk at least as large, or capture a smaller reference."
            )
        if self.raw.logical_sector_size != geometry.logical_sector_size:
            raise ImagingError(
                f"{path} has sectors of {self.raw.logical_sector_size} bytes and the image's disk has {geometry.logical_sector_size}: partition "
                "tables and file systems count in sectors, so it would not boot. Nothing was written. Use a disk with the same sector size."
            )
        known = [(name, getattr(self.disk, name), source.get(name)) for name in ("serial", "wwn")]
        if not any(found or was for _name, found, was in known):
            known = [("host and device", (self._request.host, path), (source.get("host"), source.get("device")))]
        # Cheap disks share serial numbers; a world wide name that differs is then the better witness.
        if all(known[-1][1:]) and known[-1][1] != known[-1][2]:
            return
        for name, found, was in known:
            if found and found == was and self._request.write:
                raise ImagingError(
                    f"{path} is the disk that the image was captured from (the same {name}, {found}): the reference is never "
                    "restored. Nothing was written. Check which laptop this is."
                )

    def __enter__(self) -> TargetDisk:
        return self


class RestoreSink:
    """One restore or comparison, over as many links as it takes. Each step is done once; a new link goes on where the last one broke."""

    def __init__(self, disk: TargetDisk, request: RestoreRequest, zstd: Zstd, session: Session) -> None:
        self._disk = disk
        self._request = request
        self._zstd = zstd
        self._session = session
        self._damaged: dict[int, int] = {}
        self._missing = bytearray()
        self._guards_down = False
        self._engine: Restore
        self._scan: Scan
        self._header: ImageHeader | None = None
        self._index: Index
        self._write_seconds: float | None = None
        self.differing: array[int] | None = None
        self.watches = Stopwatches()
        self.warnings: list[str] = []

    def converse(self, link: Link) -> None:
        """What this end says on one link; raises LinkError when it broke before everything was done."""
        if self._header is None:
            self._learn(link)
        if self._request.write:
            self._fetch(link)
        if self.differing is None and (self._request.read_back or not self._request.write):
            link = self._compare(link)
        if self._request.write:
            self._conclude()
        try:
            finish(link)
        except LinkError:
            pass  # all is done here; whether the controller heard of it, it finds out by Ansible's own connection

    def _learn(self, link: Link) -> None:
        packed_header, packed_index = ask_description(link)
        header = ImageHeader.unpack(packed_header)
        index = Index.unpack(packed_index, packed_header, header.geometry)
        found = index.root_digest()
        if found != self._request.root_digest:
            raise ImagingError(
                f"The index that arrived has the root digest {found.hex()} and the image that was asked for has "
                f"{self._request.root_digest.hex()}. Nothing was written."
            )
        self._disk.check_fits(header)
        geometry = header.geometry
        if self._disk.raw.size > geometry.disk_size:
            self.warnings.append(
                f"{self._disk.raw.path} is {self._disk.raw.size - geometry.disk_size} bytes larger than the image's disk: what is beyond stays "
                "unused, and the backup of a GPT lies before it. sgdisk --move-second-header moves it to the end."
            )
        self._index = index
        self._engine = Restore(self._disk.raw, geometry, index, self._zstd, self.watches)
        self._scan = Scan(self._disk.raw, geometry, index, self.watches)
        self._missing = bytearray(b"\1") * len(index)
        self._header = header

    def _fetch(self, link: Link) -> None:
        if self._write_seconds is not None:
            return
        for chunk in self._damaged:
            damaged(link, chunk)
        if not self._guards_down:
            self._engine.lower_guards()
            self._guards_down = True
        self._receive_records(link, self._ask(link))
        if any(self._missing):
            chunk = self._index.chunk_at(self._missing.index(1))
            raise ImagingError(f"The controller did not send chunk {chunk}, which the image has. Run again.")
        flushing = self.watches.new()
        self._engine.raise_guards()
        flushing.busy("flush")
        self._write_seconds = self.watches.seconds()

    def _ask(self, link: Link) -> int:
        """Ask for every missing chunk, in disk order; returns how many requests that took."""
        requests = 0
        ranges: list[tuple[int, int]] = []
        for position, missing in enumerate(self._missing):
            if not missing:
                continue
            chunk = self._index.chunk_at(position)
            if ranges and ranges[-1][1] == chunk:
                ranges[-1] = (ranges[-1][0], chunk + 1)
            else:
                ranges.append((chunk, chunk + 1))
            if len(ranges) > RANGES_PER_REQUEST:
                want(link, ranges[:-1])
                requests, ranges = requests + 1, ranges[-1:]
        want(link, ranges)
        return requests + 1

    def _receive_records(self, link: Link, requests: int) -> None:
        geometry, stream = self._index.geometry, self._header.stream if self._header else b""

        def unpack(payload: bytes) -> RecordHeader:
            return RecordHeader.unpack(payload, geometry, stream)

        def receive(room: memoryview) -> RecordHeader | None:
            nonlocal requests
            while requests:
                header = receive_record(link, unpack, room)
                if header is not None:
                    return header
                requests -= 1
            return None

        try:
            self._engine.write(receive, link.close, self._written)
        except DamagedFrame as error:
            link.close()
            self._count_damaged(error)

    def _count_damaged(self, error: DamagedFrame) -> None:
        times = self._damaged[error.chunk] = self._damaged.get(error.chunk, 0) + 1
        if times >= DAMAGED_LIMIT:
            raise ImagingError(
                f"The frame of chunk {error.chunk} arrived damaged {times} times: something between the image and this laptop changes data "
                "(network hardware, memory, or somebody in between). The disk is not restored and does not boot; run again when that is mended."
            ) from error
        raise LinkError(str(error)) from error

    def _written(self, chunk: int) -> None:
        position = self._index.position(chunk)
        if position is not None:
            self._missing[position] = 0

    def _compare(self, link: Link) -> Link:
        """Read the disk; returns the link that is there when that is done."""
        attendance = self._session.attend(link)
        self.differing = self._scan.differing(self._index, attendance.check)
        return attendance.link

    def _conclude(self) -> None:
        """Let the kernel see what was written, or, if that is not what it should be, see to it that nobody boots it."""
        if self.differing:
            self._engine.lower_guards()
            return
        warning = self._disk.raw.reread_partition_table()
        if warning and warning not in self.warnings:
            self.warnings.append(warning)

    def result(self) -> dict[str, Any]:
        """The module's result, once the conversation is over."""
        if self._header is None or (self._request.write and self._write_seconds is None):
            raise ImagingError("The controller ended the transfer before it was done.")
        differing = self.differing if self.differing is not None else array("I")
        seconds = self.watches.seconds()
        return {
            "device": self._disk.raw.path,
            "disk_size": self._disk.raw.size,
            "root_digest": self._request.root_digest.hex(),
            "used_chunks": len(self._index),
            "used_bytes": self._index.used_bytes(),
            "bytes_written": self._engine.bytes_written,
            "differing_chunks": len(differing),
            "differing_bytes": sum(self._used_bytes(chunk) for chunk in differing),
            "verified": self.differing is not None and not differing,
            "past_cache": self._disk.raw.past_cache,
            "write_seconds": round(self._write_seconds or 0.0, 3),
            "compare_seconds": round(seconds - (self._write_seconds or 0.0), 3) if self.differing is not None else 0.0,
            "links_made": self._session.links_made,
            "workers": self._engine.workers,
            "stages": self.watches.stages(),
        }

    def _used_bytes(self, chunk: int) -> int:
        row = self._index.find(chunk)
        return self._index.used_in(row) if row else 0
