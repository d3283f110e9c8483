# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said of a disk as a whole: without a partition table, encrypted, hibernated, not to be started, not to be looked into."""

from __future__ import annotations

import random
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.fleet.imaging.plugins.module_utils.disk.filesystems.fat import FatTree
from ansible_collections.fleet.imaging.plugins.module_utils.disk.fitness import Fitness, examine_disk
from ansible_collections.fleet.imaging.plugins.modules import source_info
from ansible_collections.fleet.imaging.tests.integration.disk_files import (
    MIB,
    RUN,
    START,
    attached,
    needs,
    needs_loop_devices,
    only,
    part,
    runner,
    single,
    used_map,
)
from ansible_collections.fleet.imaging.tests.integration.test_disks import NTFS, ntfs_unclean_log
from ansible_collections.fleet.imaging.tests.integration.test_fitness import READY, hives, state_ini, write_windows
from ansible_collections.fleet.imaging.tests.lab.ntfs import NtfsVolume
from ansible_collections.fleet.imaging.tests.lab.tools import run as tool

pytestmark = needs_loop_devices

ESP, LINUX, BASIC_DATA = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "linux", "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"
MSR, BIOS_BOOT = "E3C9E316-0B5C-4DB8-817D-F92DF00215AE", "21686148-6449-6E6F-744E-656564454649"
NOISE = random.Random(5).randbytes(MIB)


def sparse(path: Path, size: int) -> Path:
    with open(path, "wb") as file:
        file.truncate(size)
    return path


def write(path: Path, offset: int, content: bytes) -> Path:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(content)
    return path


def made(path: Path, size: int, *make: str | Path) -> Path:
    """What a program makes of a file, whose name becomes its last argument."""
    subprocess.run([*make, sparse(path, size)], check=True, capture_output=True)
    return path


def linux(path: Path) -> Path:
    (path.parent / "root/etc").mkdir(parents=True, exist_ok=True)
    (path.parent / "root/etc/os-release").write_text("PRETTY_NAME=Some Linux\n")
    return made(path, 12 * MIB, "mkfs.ext4", "-q", "-F", "-d", path.parent / "root")


def windows(path: Path) -> Path:
    """What is looked for of a Windows; it is not generalized."""
    made(path, 16 * MIB, *NTFS)
    with NtfsVolume(path) as ntfs:
        ntfs.write("Windows/System32/config/SYSTEM", b"")
    return path


def disk_of(path: Path, label: str, *partitions: tuple[str, Path], code: bytes = b"") -> Path:
    """A disk of partitions: what sfdisk is told of each besides its size, and what lies in it."""
    sizes = [volume.stat().st_size for _kind, volume in partitions]
    sparse(path, sum(sizes) + 2 * MIB)
    lines = (f"size={size // 512}, type={kind}" for (kind, _volume), size in zip(partitions, sizes, strict=True))
    tool("sfdisk", "--quiet", path, stdin="\n".join([f"label: {label}", *lines, ""]))
    start = MIB
    for (_kind, volume), size in zip(partitions, sizes, strict=True):
        tool("dd", f"if={volume}", f"of={path}", "bs=1M", f"seek={start // MIB}", "conv=notrunc,sparse", "status=none")
        start += size
    return write(path, 0, code)


def esp(path: Path, loader: str = "/EFI/Microsoft/Boot/bootmgfw.efi") -> Path:
    """An EFI system partition with a loader."""
    made(path, 8 * MIB, "mkfs.fat")
    program = path.parent / "program"
    program.write_bytes(b"MZ")
    FatTree(RUN, str(path)).put(str(program), loader)
    return path


def names(fitness: Fitness) -> list[str]:
    return [finding.name for finding in fitness.findings]


# --- a disk without a partition table ---


def bitlocker(path: Path) -> Path:
    """What blkid looks at of BitLocker, with program text where a partition table would be, as that of Windows has it."""
    write(sparse(path, 16 * MIB), 0, b"\xeb\x58\x90-FVE-FS-")
    write(path, 176, struct.pack("<Q", 0x2000))
    write(path, 440, b"and other media, and press a key to start again. " * 2)
    write(path, 510, b"\x55\xaa")
    return write(path, 0x2000, b"-FVE-FS-" + struct.pack("<HH", 64, 2))


def test_a_disk_that_is_all_bitlocker_is_encrypted(tmp_path: Path) -> None:
    disk = bitlocker(tmp_path / "disk")
    assert "partitiontable" in tool("sfdisk", "--json", disk)  # which takes the text for partitions
    fitness = examine_disk(RUN, str(disk))
    assert names(fitness) == ["encrypted"]
    assert [(facts.number, facts.start, facts.size) for facts in fitness.partitions] == [(0, 0, 16 * MIB)]
    assert (fitness.boot_mode, fitness.boot_problem, fitness.warnings) == ("unknown", "", [])
    sentence = fitness.findings[0].sentence()
    assert sentence.startswith("The disk as a whole (BitLocker) is encrypted")
    assert "manage-bde -off C:" in sentence and "Fully Decrypted" in sentence


def test_a_disk_that_is_all_luks_is_encrypted_and_the_way_out_is_another(tmp_path: Path) -> None:
    needs("cryptsetup")
    disk = sparse(tmp_path / "disk", 20 * MIB)
    cheap = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]
    subprocess.run(["cryptsetup", "-q", "luksFormat", *cheap, disk, "-"], input=b"secret", check=True)
    fitness = examine_disk(RUN, str(disk))
    assert names(fitness) == ["encrypted"]
    sentence = fitness.findings[0].sentence()
    assert "cryptsetup" in sentence and "manage-bde" not in sentence


def test_a_file_system_without_a_partition_table_is_looked_into(tmp_path: Path) -> None:
    disk = linux(tmp_path / "disk")
    fitness = examine_disk(RUN, str(disk))
    assert [(system.name, system.partition) for system in fitness.systems] == [("Some Linux", 0)]
    assert (fitness.findings, fitness.warnings) == ([], [])
    assert fitness.partitions[0].file_system_size == 12 * MIB
    tool("debugfs", "-w", "-R", "set_super_value state 0", disk)
    dirty = examine_disk(RUN, str(disk))
    assert names(dirty) == ["dirty"]
    assert "The disk as a whole (ext4) is not clean" in dirty.findings[0].sentence()
    assert "chkdsk" not in dirty.findings[0].sentence()


def test_an_ntfs_without_a_partition_table_is_looked_into(tmp_path: Path) -> None:
    """Its boot sector ends as an MBR does."""
    disk = windows(tmp_path / "disk")
    fitness = examine_disk(RUN, str(disk))
    assert names(fitness) == ["not_generalized"]
    assert [facts.content for facts in fitness.partitions] == ["ntfs"]


@pytest.mark.parametrize(("content", "warnings"), [(bytes(MIB), 0), (NOISE, 1)])
def test_an_empty_disk_has_nothing_to_say_and_an_unknown_one_that_it_is(
    tmp_path: Path, content: bytes, warnings: int
) -> None:
    (tmp_path / "disk").write_bytes(content)
    fitness = examine_disk(RUN, str(tmp_path / "disk"))
    assert (fitness.findings, fitness.systems, fitness.boot_mode) == ([], [], "unknown")
    assert len(fitness.warnings) == warnings
    assert all("the disk as a whole (unknown)" in warning for warning in fitness.warnings)


def test_a_mark_of_the_whole_disk_beside_its_partitions_is_said(tmp_path: Path) -> None:
    """As that of a RAID that the disk was in (md 0.90); no table is given up for it."""
    disk = disk_of(tmp_path / "disk", "gpt", (LINUX, linux(tmp_path / "linux")))
    write(disk, 14 * MIB - (64 << 10), struct.pack("<IIIIIIII", 0xA92B4EFC, 0, 90, 0, 0, 1, 1700000000, 1))
    fitness = examine_disk(RUN, str(disk))
    assert [system.name for system in fitness.systems] == ["Some Linux"]
    assert "as a whole also looks like linux_raid_member" in fitness.warnings[0]


@pytest.mark.parametrize("make", [("mkfs.fat", "-F", "16"), ("mkfs.exfat",), ("mkntfs", "-Q", "-q", "-F")])
def test_partitions_are_looked_into_on_a_disk_that_was_one_file_system_before(
    make: Sequence[str], tmp_path: Path
) -> None:
    """Its boot sector still describes that, and the programs that write a table and boot code keep the description."""
    disk = made(tmp_path / "disk", 32 * MIB, *make)
    tool("sfdisk", "--quiet", "--wipe", "never", disk, stdin=f"label: dos\nsize={16 * MIB // 512}, type=7, bootable\n")
    write(disk, MIB, windows(tmp_path / "windows").read_bytes())
    fitness = examine_disk(RUN, str(disk))
    assert [(facts.number, facts.content) for facts in fitness.partitions] == [(1, "ntfs")]
    assert "not_generalized" in names(fitness)


# --- hibernation ---

SIGNATURES = {"S1SUSPEND": 4086, "S2SUSPEND": 4086, "ULSUSPEND": 4086, "LINHIB0001": 4086, "TuxOnIce": 0}


@pytest.mark.parametrize("signature", SIGNATURES)
def test_a_linux_that_is_hibernated_in_its_swap_area_is(tmp_path: Path, signature: str) -> None:
    area = made(tmp_path / "swap", 4 * MIB, "mkswap")
    disk = disk_of(tmp_path / "disk", "gpt", (LINUX, linux(tmp_path / "linux")), ("swap", area))
    asleep = examine_disk(RUN, str(disk))
    assert (asleep.findings, asleep.warnings) == ([], [])
    mark = bytes.fromhex("edc302e99856e50c") if signature == "TuxOnIce" else signature.encode().ljust(10, b"\0")
    write(disk, 13 * MIB + SIGNATURES[signature], mark)
    fitness = examine_disk(RUN, str(disk))
    assert (names(fitness), fitness.warnings) == (["hibernated"], [])
    assert fitness.findings[0].partition == 2
    sentence = fitness.findings[0].sentence()
    assert "systemctl poweroff" in sentence and "mkswap" in sentence and "Windows" not in sentence


def log_version_2(disk: Path) -> None:
    """Have the restart pages of $LogFile say 2.0, as Windows has them while it keeps metadata for itself (ntfs-3g: logfile.h)."""
    ntfs_unclean_log(disk)
    content = disk.read_bytes()
    pages = [offset for offset in range(0, len(content), 4096) if content[offset : offset + 4] == b"RSTR"]
    assert len(pages) == 2
    for page in pages:
        write(disk, page + 26, struct.pack("<HH", 0, 2))


@pytest.mark.parametrize(
    ("file", "name", "words"),
    [
        (None, "dirty", "Windows did not dismount it, and is not hibernated in it"),
        (b"wake" + bytes(4092), "dirty", "Windows did not dismount it, and is not hibernated in it"),
        (b"HIBR" + bytes(4092), "hibernated", "powercfg /h off"),
        (b"hibr" + bytes(4092), "hibernated", "powercfg /h off"),
    ],
)
def test_an_ntfs_that_was_not_dismounted_is_hibernated_only_with_the_file_for_that(
    tmp_path: Path, file: bytes | None, name: str, words: str
) -> None:
    disk = single(tmp_path, 16 * MIB, NTFS)
    if file is not None:
        with attached(disk, *part(START, 16 * MIB)) as node, NtfsVolume(Path(node)) as ntfs:
            ntfs.write("hiberfil.sys", file)
    log_version_2(disk)
    fitness = examine_disk(RUN, str(disk))
    assert names(fitness) == [name]
    assert words in fitness.findings[0].sentence()
    assert ("is hibernated (" in fitness.findings[0].sentence()) == (name == "hibernated")
    # A capture does not look for that file.
    assert "it is hibernated, was shut down with fast startup, or was cut off" in only(used_map(disk)).reason


@pytest.mark.parametrize(
    ("make", "place", "byte"),
    [(["-F", "12", "-s", "32"], 0, b"\xeb"), (["-F", "32", "-s", "1"], 40, b"\x81")],
    ids=["FAT12", "one table in use"],
)
def test_a_file_system_of_which_no_map_is_made_is_not_dirty(
    tmp_path: Path, make: list[str], place: int, byte: bytes
) -> None:
    disk = write(single(tmp_path, 40 * MIB, ["mkfs.fat", *make]), START + place, byte)
    fitness = examine_disk(RUN, str(disk))
    assert fitness.findings == []
    assert (fitness.partitions[0].clean, fitness.partitions[0].distrust) == (None, "unmappable")
    assert fitness.partitions[0].reason == only(used_map(disk)).reason


@pytest.mark.parametrize("head", [b"wake", b"RSTR", bytes(4)])
def test_a_file_for_hibernation_that_was_used_up_is_no_hibernation(tmp_path: Path, head: bytes) -> None:
    disk = single(tmp_path, 16 * MIB, NTFS)
    with attached(disk, *part(START, 16 * MIB)) as node, NtfsVolume(Path(node)) as ntfs:
        ntfs.write("hiberfil.sys", head + bytes(8188))
    fitness = examine_disk(RUN, str(disk))
    assert (names(fitness), fitness.partitions[0].clean) == ([], True)


# --- several Windows ---


def set_up(path: Path, state: str, tag: bool) -> Path:
    """A Windows in a state."""
    made(path, 24 * MIB, *NTFS)
    write_windows(path, state_ini(state), tag, hives(state_ini(state)))
    return path


def test_of_two_windows_each_must_be_generalized(tmp_path: Path) -> None:
    ready = set_up(tmp_path / "ready", READY, tag=True)
    disk = tmp_path / "disk"
    for state, expected in ((READY, []), ("IMAGE_STATE_COMPLETE", [("not_generalized", 2)])):
        other = set_up(tmp_path / "other", state, tag=state == READY)
        fitness = examine_disk(RUN, str(disk_of(disk, "gpt", (BASIC_DATA, ready), (BASIC_DATA, other))))
        assert [(finding.name, finding.partition) for finding in fitness.findings] == expected
        assert fitness.generalization == ("not generalized" if expected else "generalized")


def test_a_former_windows_beside_one_that_is_generalized_says_nothing(tmp_path: Path) -> None:
    volume = set_up(tmp_path / "ready", READY, tag=True)
    old = "Windows.old/Windows"
    with NtfsVolume(volume) as ntfs:
        ntfs.write(f"{old}/Setup/State/State.ini", state_ini("IMAGE_STATE_COMPLETE"))
        for path, hive in hives(state_ini("IMAGE_STATE_COMPLETE")).items():
            ntfs.write(f"Windows.old/{path}", hive)
    fitness = examine_disk(RUN, str(disk_of(tmp_path / "disk", "gpt", (BASIC_DATA, volume))))
    assert (fitness.findings, fitness.warnings, fitness.generalization) == ([], [], "generalized")


# --- what will not start ---


def test_a_windows_on_a_gpt_needs_an_esp(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    system, fat = windows(tmp_path / "windows"), made(tmp_path / "fat", 8 * MIB, "mkfs.fat")
    without = examine_disk(RUN, str(disk_of(tmp_path / "disk", "gpt", (BASIC_DATA, fat), (BASIC_DATA, system))))
    assert without.boot_mode == "unknown"
    assert "no EFI system partition (ESP)" in without.boot_problem and "partition 2" in without.boot_problem
    with patch_module_args({"device": str(tmp_path / "disk")}), pytest.raises(SystemExit):
        source_info.main()
    said = capsys.readouterr()
    # In a process that has loaded Ansible's controller a module's warnings go to the terminal.
    assert "no EFI system partition (ESP)" in " ".join((said.out + said.err).split())
    full = esp(tmp_path / "full")
    for others in ([(ESP, full)], [(ESP, fat), (ESP, full)]):
        fitness = examine_disk(RUN, str(disk_of(tmp_path / "disk", "gpt", *others, (BASIC_DATA, system))))
        assert (fitness.boot_mode, fitness.boot_problem) == ("UEFI", "")


@pytest.mark.parametrize(
    ("label", "kind", "code", "problem"),
    [("gpt", ESP, b"", True), ("dos", "ef", b"", True), ("dos", "ef", b"GRUB", False)],
)
def test_an_esp_without_a_loader_starts_nothing(
    label: str, kind: str, code: bytes, problem: bool, tmp_path: Path
) -> None:
    fat, system = esp(tmp_path / "fat", "/EFI/notes/loader.efi"), linux(tmp_path / "linux")
    fitness = examine_disk(RUN, str(disk_of(tmp_path / "disk", label, (kind, fat), ("linux", system), code=code)))
    assert fitness.boot_mode == "UEFI"
    assert ("copies will not start Some Linux in partition 2" in fitness.boot_problem) == problem


def test_nothing_is_said_of_an_esp_that_cant_be_read(tmp_path: Path) -> None:
    unread = write(sparse(tmp_path / "esp", 2 * MIB), 0, NOISE)
    fitness = examine_disk(
        RUN, str(disk_of(tmp_path / "disk", "gpt", (ESP, unread), (LINUX, linux(tmp_path / "linux"))))
    )
    assert (fitness.boot_mode, fitness.boot_problem) == ("UEFI", "")


@pytest.mark.parametrize(
    ("kinds", "code", "mode", "problem"),
    [
        (["7"], b"\xfa\x33\xc0 Missing operating system", "BIOS", True),
        (["7, bootable"], b"\xfa\x33\xc0 Missing operating system", "BIOS", False),
        (["7"], b"", "unknown", True),
        (["7"], b"\xeb\x63\x90 GRUB Geom", "BIOS", False),
        (["ef", "7"], b"", "UEFI", False),
    ],
)
def test_a_windows_on_an_mbr_needs_an_active_partition(
    tmp_path: Path, kinds: Sequence[str], code: bytes, mode: str, problem: bool
) -> None:
    system, fat = windows(tmp_path / "windows"), esp(tmp_path / "fat")
    partitions = zip(kinds, [system] if len(kinds) == 1 else [fat, system], strict=True)
    fitness = examine_disk(RUN, str(disk_of(tmp_path / "disk", "dos", *partitions, code=code)))
    assert (fitness.boot_mode, "marked as active" in fitness.boot_problem) == (mode, problem)


def test_a_gpt_is_started_by_bios_with_a_partition_or_code_for_that(tmp_path: Path) -> None:
    disk = disk_of(tmp_path / "disk", "gpt", (LINUX, linux(tmp_path / "linux")))
    fitness = examine_disk(RUN, str(disk))
    assert fitness.boot_mode == "unknown" and "copies will not start Some Linux in partition 1" in fitness.boot_problem
    fitness = examine_disk(RUN, str(write(disk, 0, b"GRUB")))
    assert (fitness.boot_mode, fitness.boot_problem) == ("BIOS", "")
    boot = write(sparse(tmp_path / "boot", MIB), 0, NOISE[: 64 << 10])
    fitness = examine_disk(
        RUN, str(disk_of(tmp_path / "disk", "gpt", (BIOS_BOOT, boot), (LINUX, linux(tmp_path / "linux"))))
    )
    assert (fitness.boot_mode, fitness.boot_problem, fitness.warnings) == ("BIOS", "", [])


# --- what is not looked into ---


def test_what_may_hold_a_system_and_is_not_looked_into_is_said_at_once(tmp_path: Path) -> None:
    """Of LVM there is its label, of F2FS its superblock, as blkid looks for them."""
    needs("pvcreate")
    volume = sparse(tmp_path / "volume", 4 * MIB)
    with attached(volume) as node:
        tool(
            "pvcreate",
            "--quiet",
            "--config",
            "global/locking_type=0 backup{backup=0 archive=0} devices{use_devicesfile=0}",
            node,
        )
    f2fs = write(sparse(tmp_path / "f2fs", 2 * MIB), 1024, struct.pack("<IHHII", 0xF2F52010, 1, 15, 9, 3))
    noise = write(sparse(tmp_path / "noise", 2 * MIB), 0, NOISE)
    inner = sparse(tmp_path / "inner", 4 * MIB)
    tool("sfdisk", "--quiet", inner, stdin="label: gpt\nsize=1M\n")
    blank = sparse(tmp_path / "blank", MIB)
    others = [(LINUX, volume), (LINUX, f2fs), (LINUX, noise), (LINUX, inner)]
    quiet = [(MSR, noise), (BIOS_BOOT, noise), (LINUX, blank), ("swap", made(tmp_path / "swap", MIB, "mkswap"))]
    fitness = examine_disk(RUN, str(disk_of(tmp_path / "disk", "gpt", *others, *quiet)))
    assert fitness.findings == []
    (warning,) = fitness.warnings
    assert warning.endswith(
        "partition 1 (LVM2_member), partition 2 (f2fs), partition 3 (unknown), partition 4 (a partition table of its own, gpt)."
    )


def test_an_extended_partition_is_room_for_others(tmp_path: Path) -> None:
    disk = sparse(tmp_path / "disk", 20 * MIB)
    lines = "start=2048, size=18M, type=5\nstart=4096, size=12M, type=83\nsize=1M, type=82\n"
    tool("sfdisk", "--quiet", disk, stdin=f"label: dos\n{lines}")
    tool("dd", f"if={linux(tmp_path / 'linux')}", f"of={disk}", "bs=1M", "seek=2", "conv=notrunc,sparse", "status=none")
    fitness = examine_disk(RUN, str(disk))
    assert [system.partition for system in fitness.systems] == [5]
    assert (fitness.findings, fitness.warnings) == ([], [])


def test_what_a_partition_held_before_it_became_a_disk_of_its_own_is_no_reason(tmp_path: Path) -> None:
    volume = linux(tmp_path / "linux")
    tool("debugfs", "-w", "-R", "set_super_value state 0", volume)
    tool("sfdisk", "--quiet", "--wipe", "never", volume, stdin="label: dos\nstart=8, size=1M\n")
    fitness = examine_disk(RUN, str(disk_of(tmp_path / "disk", "gpt", (LINUX, volume))))
    assert (fitness.findings, fitness.systems) == ([], [])
    assert "partition 1 (a partition table of its own, dos)" in fitness.warnings[0]


def test_what_is_not_clean_is_not_given_to_the_kernel(tmp_path: Path) -> None:
    needs("mkfs.btrfs")
    volume = made(tmp_path / "btrfs", 128 * MIB, "mkfs.btrfs", "-q")
    write(volume, 0x10000 + 0x60, struct.pack("<Q", 0x100000))
    fitness = examine_disk(RUN, str(disk_of(tmp_path / "disk", "gpt", (LINUX, volume))))
    assert names(fitness) == ["dirty"]
    assert "partition 1 (btrfs, not clean)" in fitness.warnings[0]


# --- sizes ---

SMALLER = {
    "ext4": ["sh", "-c", 'mkfs.ext4 -q "$0" 8M'],
    "ntfs": ["sh", "-c", 'mkntfs -Q -q -F "$0" 16384'],
    "vfat": ["sh", "-c", 'mkfs.fat -F 16 -s 1 "$0" 8192'],
}


@pytest.mark.parametrize("kind", SMALLER)
def test_a_file_system_smaller_than_its_partition_uses_no_more_than_it_has(tmp_path: Path, kind: str) -> None:
    (facts,) = examine_disk(RUN, str(single(tmp_path, 64 * MIB, SMALLER[kind]))).partitions
    assert facts.content == kind and facts.file_system_size == 8 * MIB
    assert facts.used is not None and 0 < facts.used <= 8 * MIB


def test_without_partclone_it_is_said_once_that_more_is_captured(tmp_path: Path) -> None:
    volume = linux(tmp_path / "linux")
    disk = disk_of(tmp_path / "disk", "gpt", (LINUX, volume), (LINUX, volume))
    fitness = examine_disk(runner("partclone.extfs"), str(disk))
    assert [facts.used for facts in fitness.partitions] == [None, None]
    (warning,) = fitness.warnings
    assert "partclone.extfs is not installed" in warning
