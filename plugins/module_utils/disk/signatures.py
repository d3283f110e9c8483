# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where programs look for signatures on a block device: of a file system, a RAID, LVM, an encrypted volume.

A signature of a former use in one of these places decides what programs take the device for, even if its present file system does not use
the place. So these places always belong to an image.

Sources, all in the same places or between them: util-linux 2.38 to 2.41, libblkid/src/superblocks; mdadm, super0.c and super1.c (0.90
and 1.0 in the last 128 KiB, 1.1 and 1.2 in the first 8 KiB); Linux, drivers/md/bcache (4 KiB) and fs/btrfs (64 KiB; its further copies
are read on request only), block/partitions (first MiB, last sector; the database of dynamic disks in the last MiB); LVM2,
lib/label/label.c (first four sectors); OpenZFS, vdev_label.c (first 512 KiB, last 768 KiB).
"""

from __future__ import annotations

HEAD = 1 << 20
"""Bytes at the start of a device, for nearly all signatures."""

FURTHER = (1 << 20, 2 << 20, 4 << 20)
"""Offsets beyond the head: second headers of LUKS2 (luks.c), anchors of UDF (udf.c), VMFS (vmfs.c)."""

BLOCK = 4096
"""Bytes at each of these offsets."""

TAIL = 2 << 20
"""Bytes at the end of a device. The signature furthest from the end is that of Promise's RAID, 3087 sectors (promise_raid.c). This is also
enough where a partition ends up to 1 MiB before the disk, as an enlarged one does."""


def probed_ranges(start: int, size: int) -> list[tuple[int, int]]:
    """Return the byte ranges of the disk in which programs look for signatures of a device of ``size`` bytes at ``start``."""
    end = start + size
    places = [(0, HEAD), *((offset, offset + BLOCK) for offset in FURTHER), (max(0, size - TAIL), size)]
    return [(start + low, min(start + high, end)) for low, high in places if low < size]
