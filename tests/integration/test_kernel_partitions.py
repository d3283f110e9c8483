# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A kernel that goes on with an old partition table is noticed: loop devices whose partitions the kernel was told of, one by one.

Like that, because not every kernel that runs tests can read a partition table by itself.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.kernel_partitions import (
    KernelPartition,
    compare_with_kernel,
    differences,
    kernel_partitions,
    reread_table,
)
from ansible_collections.fleet.imaging.plugins.module_utils.disk.partition_table import Partition, PartitionTable
from ansible_collections.fleet.imaging.plugins.module_utils.disk.raw_io import RawDisk
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.tests.integration.disk_files import (
    MIB,
    RUN,
    attached,
    needs_loop_devices,
    partitioned,
)
from ansible_collections.fleet.imaging.tests.lab.disks import forget_partition
from ansible_collections.fleet.imaging.tests.lab.tools import run as tool
from ansible_collections.fleet.imaging.tests.unit.plugins.plugin_utils.halves import made_laptop, restore

pytestmark = needs_loop_devices

GPT = ("label: gpt\nstart={0}, size={1}, name=one\nstart={2}, size={3}, name=two\n", ((1, 1, 4), (2, 5, 4)))
DOS = (
    "label: dos\n1: start={0}, size={1}\n2: start={2}, size={3}, type=5\n5: start={4}, size={5}\n",
    ((1, 1, 4), (2, 8, 16), (5, 10, 4)),
)
"""What sfdisk is told, and of each partition the number, and start and size in MiB."""


@contextmanager
def known(
    tmp_path: Path, layout: tuple[str, tuple[tuple[int, int, int], ...]] = GPT, sector: int = 512
) -> Iterator[str]:
    """A loop device with partitions of which the kernel was told."""
    script, partitions = layout
    disk = tmp_path / "disk"
    with open(disk, "wb") as file:
        file.truncate(32 * MIB)
    with attached(disk, "--sector-size", str(sector), "--partscan") as device:
        places = [place * MIB // sector for _number, *both in partitions for place in both]
        partitioned(Path(device), script.format(*places))
        for number, start, size in partitions:
            # Of an extended partition the kernel takes two sectors of 512 bytes, or one of the disk's if that is more.
            length = size * MIB if (layout, number) != (DOS, 2) else max(1024, sector)
            add_partition(device, number, start * MIB, length)
        try:
            yield device
        finally:
            delete_partitions(device)


def add_partition(device: str, number: int, start: int, size: int) -> None:
    """Tell the kernel of a partition, in bytes."""
    tool("addpart", device, str(number), str(start // 512), str(size // 512))


def delete_partitions(device: str) -> None:
    """Have the kernel forget all partitions."""
    for number in kernel_partitions(device):
        forget_partition(device, number)


def another_table(device: str, sector: int = 512) -> None:
    """Write a table of which the kernel is not told: the second partition begins elsewhere, and there is a third."""
    sectors = MIB // sector
    script = (
        f"label: gpt\nstart={sectors}, size={4 * sectors}\nstart={6 * sectors}, size={4 * sectors}\nsize={sectors}\n"
    )
    tool("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", device, stdin=script)


@pytest.mark.parametrize("sector", [512, 4096])
@pytest.mark.parametrize("layout", [GPT, DOS], ids=["gpt", "dos"])
def test_the_kernel_counts_in_other_sectors_than_the_table_and_means_the_same(
    tmp_path: Path, layout: tuple[str, tuple[tuple[int, int, int], ...]], sector: int
) -> None:
    with known(tmp_path, layout, sector) as device:
        found = kernel_partitions(device)
        assert [(each.number, each.start // MIB) for _number, each in sorted(found.items())] == [
            (number, start) for number, start, _size in layout[1]
        ]
        assert (found[1].size, found[1].node) == (4 * MIB, f"{device}p1")
        assert compare_with_kernel(RUN, device) == []


@pytest.mark.parametrize("sector", [512, 4096])
def test_a_table_of_which_the_kernel_was_not_told_is_another_one(tmp_path: Path, sector: int) -> None:
    with known(tmp_path, sector=sector) as device:
        another_table(device, sector)
        first, second = compare_with_kernel(RUN, device)
        assert first.startswith(f"partition 2: the table has bytes {6 * MIB} to {10 * MIB} ")
        assert first.endswith(f", and the kernel bytes {5 * MIB} to {9 * MIB}")
        assert second.startswith(f"partition 3: the table has bytes {10 * MIB} to {11 * MIB} ")
        assert second.endswith(", and the kernel none")


def test_a_partition_too_many_or_too_few_is_named(tmp_path: Path) -> None:
    with known(tmp_path) as device:
        add_partition(device, 7, 20 * MIB, MIB)
        assert compare_with_kernel(RUN, device) == [
            f"partition 7: the table has none, and the kernel bytes {20 * MIB} to {21 * MIB}"
        ]
        forget_partition(device, 1)
        assert len(compare_with_kernel(RUN, device)) == 2
        # A disk without a table, of which the kernel still has partitions.
        with open(device, "r+b") as disk:
            disk.write(bytes(MIB))
            disk.seek(-MIB, os.SEEK_END)
            disk.write(bytes(MIB))
        assert [line.partition(":")[0] for line in compare_with_kernel(RUN, device)] == ["partition 2", "partition 7"]


def test_while_a_partition_is_open_the_kernel_goes_on_with_the_old_table_and_who_has_it_is_named(
    tmp_path: Path,
) -> None:
    with known(tmp_path) as device:
        another_table(device)
        descriptor = os.open(f"{device}p1", os.O_RDONLY)
        with subprocess.Popen(["sleep", "60"], stdin=descriptor) as holder:
            os.close(descriptor)
            with RawDisk(device, writable=True, patience=0.2) as disk:
                view = reread_table(RUN, disk, changed=True)
                again = reread_table(RUN, disk, changed=False)
            holder.kill()
        assert view == again and view.warning == ""
        assert f"a partition may be open in process {holder.pid} (sleep)" in view.stale[0]
        assert [line.partition(":")[0] for line in view.stale[1:]] == ["partition 2", "partition 3"]
        with RawDisk(device, writable=True) as disk:
            view = reread_table(RUN, disk, changed=False)
        assert view.stale == []
        assert compare_with_kernel(RUN, device) == []


def test_while_a_partition_is_open_an_equal_table_is_no_old_one(tmp_path: Path) -> None:
    with known(tmp_path) as device:
        descriptor = os.open(f"{device}p1", os.O_RDONLY)
        with RawDisk(device, writable=True, patience=0.2) as disk:
            view = reread_table(RUN, disk, changed=True)
        os.close(descriptor)
    assert (view.stale, view.warning) == ([], "")


@pytest.mark.parametrize("scan", ["--partscan", ""])
def test_a_restore_fails_when_the_kernel_goes_on_with_another_table(tmp_path: Path, scan: str) -> None:
    """The image has no table. Where the kernel reads none, it still has the partition that it was told of."""
    with made_laptop(tmp_path) as laptop, attached(laptop.disk, *([scan] if scan else [])) as device:
        laptop.disk = Path(device)
        add_partition(device, 3, 4096, 32768)
        try:
            result, _ends = restore(laptop, run=RUN)
            assert result["verified"] and result["disk_state"] == "verified"
            if scan:
                result["end"]()
                assert kernel_partitions(device) == {}
                return
            for _time in range(2):
                with pytest.raises(ImagingError) as failure:
                    result["end"]()
                assert failure.value.facts["codes"] == ["kernel_table"]
                said = str(failure.value)
                assert f"{device} holds the image, but the kernel of this laptop still uses another" in said
                assert "partition 3: the table has none, and the kernel bytes 4096 to 36864" in said
                assert "Restart the laptop before anything else uses the disk, and run again" in said
                result, _ends = restore(laptop, run=RUN)  # which has nothing to write
                assert not result["changed"]
            compared, _ends = restore(laptop, run=RUN, write=False)
            compared["end"]()
            assert compared["verified"]
        finally:
            delete_partitions(device)


def said_of(folder: Path, uevent: str, start: int = 2048, size: int = 8192) -> Path:
    """A block device of which the kernel says that it has one partition, in a folder that stands for /sys. Nobody opens it."""
    disk = folder / "node"
    os.mknod(disk, stat.S_IFBLK | 0o600, os.makedev(7, 4095))
    said = folder / "dev/block/7:4095/loop4095p1"
    said.mkdir(parents=True)
    for name, text in {
        "partition": "1",
        "start": str(start),
        "size": str(size),
        "dev": "259:9",
        "uevent": uevent,
    }.items():
        (said / name).write_text(f"{text}\n")
    return disk


GUID = "0F2D5C1E-0000-4000-8000-00000000000A"


@pytest.mark.parametrize(
    ("uevent", "entry", "same"),
    [
        ("PARTN=1", Partition(1, "", MIB, 4 * MIB, "", GUID, "one"), True),
        (f"PARTN=1\nPARTNAME=one\nPARTUUID={GUID.lower()}", Partition(1, "", MIB, 4 * MIB, "", GUID, "one"), True),
        (f"PARTN=1\nPARTNAME=old\nPARTUUID={GUID.lower()}", Partition(1, "", MIB, 4 * MIB, "", GUID, "one"), False),
        ("PARTN=1\nPARTUUID=0f2d5c1e-0000-4000-8000-00000000000b", Partition(1, "", MIB, 4 * MIB, "", GUID), False),
        ("PARTN=1\nPARTNAME=Gr\xfcn!", Partition(1, "", MIB, 4 * MIB, "", GUID, "Gr\xfcn\u2713"), True),
    ],
)
def test_what_the_kernel_calls_a_partition_is_compared_as_far_as_it_says_it(
    tmp_path: Path, uevent: str, entry: Partition, same: bool
) -> None:
    """The old table can have its partitions at the same places."""
    known_here = kernel_partitions(str(said_of(tmp_path, uevent)), str(tmp_path))
    assert (not differences(known_here, PartitionTable("gpt", 512, 32 * MIB, (entry,), {}))) is same


@pytest.mark.parametrize(("uuid", "same"), [("1234abcd-01", True), ("1234abce-01", False)])
def test_in_a_dos_table_it_is_the_disk_s_signature_and_the_number(tmp_path: Path, uuid: str, same: bool) -> None:
    known_here = kernel_partitions(str(said_of(tmp_path, f"PARTUUID={uuid}")), str(tmp_path))
    table = PartitionTable("dos", 512, 32 * MIB, (Partition(1, "", MIB, 4 * MIB, "83"),), {"id": "0x1234abcd"})
    assert (not differences(known_here, table)) is same


@pytest.mark.parametrize(("kind", "same"), [("a5", True), ("83", False)])
def test_partitions_within_one_of_a_bsd_are_in_no_table(kind: str, same: bool) -> None:
    slices = {number: KernelPartition(number, "", MIB, size * MIB, "") for number, size in ((1, 4), (5, 2))}
    table = PartitionTable("dos", 512, 32 * MIB, (Partition(1, "", MIB, 4 * MIB, kind),), {"id": "0x1"})
    assert (not differences(slices, table)) is same
