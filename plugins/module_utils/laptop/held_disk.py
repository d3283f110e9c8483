# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk that is held from the check to the end of a transfer. Its identity is checked again once it is held."""

from __future__ import annotations

from typing import Any, Mapping, TypeVar

from ..disk.command import RunCommand
from ..disk.devices import disk_at
from ..disk.identity import check_same, identify
from ..disk.raw_io import RawDisk
from ..reasons import messages, refuse_for

Held = TypeVar("Held", bound="HeldDisk")


class HeldDisk:
    """``raw`` is the held disk, ``disk`` what is known of it, ``in_use`` says what else has it, if that was allowed."""

    def __init__(
        self,
        run: RunCommand,
        device: str,
        expect: Mapping[str, Any] | None,
        writable: bool,
        may_be_in_use: bool = False,
    ) -> None:
        """Hold a disk for reading or writing; raises ImagingError with every reason against it.

        ``expect`` identifies the selected disk (``disk.identity``); missing entries are not compared.
        With ``may_be_in_use``, users that could be released are no reason against it; the disk is then shared with them.
        """
        disk = disk_at(run, device)
        saying = f"{disk.path} can't be {'written' if writable else 'read as a whole'}:"
        refuse_for(disk.refusals(writable, release=may_be_in_use), saying)
        self.in_use = messages(disk.refusals(writable))
        self.raw = RawDisk(disk.path, writable, shared=bool(self.in_use))
        try:
            self.disk = disk_at(run, self.raw.path)
            check_same(self.raw.path, expect, identify(self.disk, self.raw.fileno()))
        except BaseException:
            self.raw.close()
            raise

    def identity(self) -> dict[str, Any]:
        """Return the identity of this disk, for a result."""
        return {"model": self.disk.model, "serial": self.disk.serial, "wwn": self.disk.wwn}

    def table_id(self) -> str:
        """Return the kind and id of the current partition table, which are part of the disk's identity."""
        return str(identify(self.disk, self.raw.fileno())["table"])

    def __enter__(self: Held) -> Held:
        return self

    def __exit__(self, *exception: object) -> None:
        self.raw.close()
