# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is a disk fit to be captured? Real NTFS and ext4 in the states that matter; no Windows is to be had, so its files are made."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.blkid import detect
from ansible_collections.fleet.imaging.plugins.module_utils.disk.filesystems.ext import ExtTree
from ansible_collections.fleet.imaging.plugins.module_utils.disk.filesystems.ntfs import NtfsTree
from ansible_collections.fleet.imaging.plugins.module_utils.disk.fitness import Fitness, examine_disk
from ansible_collections.fleet.imaging.plugins.module_utils.disk.hive import Hive
from ansible_collections.fleet.imaging.plugins.module_utils.disk.partition_table import read_partition_table
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.tests.integration.disk_files import (
    MIB,
    RUN,
    START,
    attached,
    needs,
    part,
    runner,
    single,
)
from ansible_collections.fleet.imaging.tests.integration.labs import isolated, running_lab
from ansible_collections.fleet.imaging.tests.integration.playbooks import Outcome, playbook, stored
from ansible_collections.fleet.imaging.tests.integration.test_disks import (
    NTFS,
    mounted,
    ntfs_dirty,
    ntfs_record,
    ntfs_unclean_log,
    patch,
)
from ansible_collections.fleet.imaging.tests.lab import registry
from ansible_collections.fleet.imaging.tests.lab.faulty_disk import faulty_disk
from ansible_collections.fleet.imaging.tests.lab.hives import Data, Values, make_hive, new_log, unwritten
from ansible_collections.fleet.imaging.tests.lab.lab import Lab, Plan
from ansible_collections.fleet.imaging.tests.lab.ntfs import NtfsVolume
from ansible_collections.fleet.imaging.tests.lab.tools import run as tool

pytestmark = pytest.mark.skipif(not isolated(), reason="a partition's file system needs a loop device, and so root")

STATE_INI = "Windows/Setup/State/State.ini"
TAG = "Windows/System32/Sysprep/Sysprep_succeeded.tag"
READY = "IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE"
CONFIG = "Windows/System32/config"
SESSION = r"ControlSet001\Control\Session Manager"
SIZE = 64 * MIB


def state_ini(state: str, encoding: str = "utf-16") -> bytes:
    return f"[State]\r\nImageState={state}\r\n".encode(encoding)


def hives(state: bytes | None, changes: dict[str, dict[str, Data]] | None = None) -> dict[str, bytes]:
    """The registry of a Windows in that state, with changes by key."""
    said = (state or b"").replace(b"\0", b"").decode("ascii", "ignore").partition("ImageState=")[2].strip()
    values: dict[str, dict[str, dict[str, Data]]] = {"SOFTWARE": {}, "SYSTEM": {}}
    changed: Values = {registry.SETUP_STATE: {"ImageState": said}, **(changes or {})}
    for key, entries in (*registry.SOFTWARE.items(), *registry.SYSTEM.items(), *changed.items()):
        values["SOFTWARE" if key.startswith("Microsoft") else "SYSTEM"].setdefault(key, {}).update(entries)
    return {f"{CONFIG}/{name}": make_hive(entries) for name, entries in values.items()}


def write_windows(volume: Path, state: bytes | None, tag: bool, files: dict[str, bytes]) -> None:
    """Put into an NTFS what is looked at of a Windows."""
    with NtfsVolume(volume) as ntfs:
        if state is not None:
            ntfs.write(STATE_INI, state)
        if tag:
            ntfs.write(TAG, b"")
        for path, content in files.items():
            ntfs.write(path, content)


@contextmanager
def partition_of(disk: Path, size: int = SIZE) -> Iterator[Path]:
    """A writable loop device of the only partition of a disk."""
    with attached(disk, *part(START, size)) as node:
        yield Path(node)


def windows_disk(tmp_path: Path, state: bytes | None, tag: bool, files: dict[str, bytes] | None = None) -> Path:
    disk = single(tmp_path, SIZE, NTFS)
    with partition_of(disk) as node:
        write_windows(node, state, tag, hives(state) if files is None else files)
    return disk


def names(fitness: Fitness) -> list[str]:
    return [finding.name for finding in fitness.findings]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "ascii"])
def test_a_windows_that_sysprep_made_ready_is_fit(tmp_path: Path, encoding: str) -> None:
    fitness = examine_disk(RUN, str(windows_disk(tmp_path, state_ini(READY, encoding), tag=True)))
    assert (names(fitness), fitness.generalization, fitness.warnings) == ([], "generalized", [])
    (facts,) = fitness.partitions
    assert (facts.content, facts.clean) == ("ntfs", True)
    (system,) = fitness.systems
    assert (system.kind, system.name, system.edition, system.build) == (
        "windows",
        "Windows 11 Pro 23H2",
        "Professional",
        "22631",
    )
    assert (system.architecture, system.computer_name, system.unread) == ("amd64", "REFERENCE", "")
    assert "the registry says ImageState IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE, SetupType 2" in system.evidence[2]
    assert fitness.boot_mode == "unknown" and "no EFI system partition" in fitness.boot_problem


@pytest.mark.parametrize(
    ("state", "tag", "words"),
    [
        (state_ini("IMAGE_STATE_COMPLETE"), False, "sysprep was not run, or it was started since"),
        (state_ini("IMAGE_STATE_COMPLETE"), True, "sysprep was not run, or it was started since"),
        (state_ini("IMAGE_STATE_UNDEPLOYABLE"), False, "can't be deployed"),
        (state_ini("IMAGE_STATE_GENERALIZE_RESEAL_TO_AUDIT"), True, "audit mode"),
        (
            state_ini("IMAGE_STATE_SPECIALIZE_RESEAL_TO_OOBE"),
            True,
            "sysprep was run without /generalize, or its first start",
        ),
        (state_ini("IMAGE_STATE_OF_THE_ART"), True, "not known"),
        (state_ini(READY), False, "did not say that it succeeded"),
        (None, False, "does not say in which state"),
        (None, True, "sysprep has succeeded some time"),
        (b"", True, "does not say in which state"),
        (b"\xff\xfe garbage \0\0", True, "does not say in which state"),
    ],
)
def test_a_windows_in_any_other_state_is_not(tmp_path: Path, state: bytes | None, tag: bool, words: str) -> None:
    fitness = examine_disk(RUN, str(windows_disk(tmp_path, state, tag)))
    assert (names(fitness), fitness.generalization) == (["not_generalized"], "not generalized")
    sentence = fitness.findings[0].sentence()
    assert words in sentence and "State.ini says" in sentence and "sysprep /generalize /oobe" in sentence


def test_a_windows_without_its_registry_is_not_fit_by_its_files_alone(tmp_path: Path) -> None:
    files = {f"{CONFIG}/DEFAULT": b""}
    disk = windows_disk(tmp_path, state_ini("IMAGE_STATE_COMPLETE"), tag=False, files=files)
    fitness = examine_disk(RUN, str(disk))
    assert (names(fitness), fitness.generalization) == (["not_generalized"], "not generalized")
    assert "State.ini says IMAGE_STATE_COMPLETE" in fitness.findings[0].sentence()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({registry.SETUP_STATE: {"ImageState": "IMAGE_STATE_COMPLETE"}}, "State.ini and its registry do not agree"),
        ({registry.SETUP_STATE: {"ImageState": ""}}, "State.ini and its registry do not agree"),
        ({"Setup": {"SetupType": 0}}, "first start"),
        ({"Setup": {"CmdLine": ""}}, "first start"),
    ],
)
def test_a_registry_that_contradicts_is_named(tmp_path: Path, changes: dict[str, dict[str, Data]], words: str) -> None:
    files = hives(state_ini(READY), changes)
    fitness = examine_disk(RUN, str(windows_disk(tmp_path, state_ini(READY), tag=True, files=files)))
    assert (names(fitness), fitness.generalization) == (["not_generalized"], "not generalized")
    sentence = fitness.findings[0].sentence()
    assert words in sentence and "contradicts itself" in sentence and "the registry says" in sentence


def test_a_state_that_only_the_registry_has_is_a_contradiction(tmp_path: Path) -> None:
    files = hives(state_ini(READY))
    fitness = examine_disk(RUN, str(windows_disk(tmp_path, state_ini("IMAGE_STATE_COMPLETE"), tag=True, files=files)))
    assert "contradicts itself" in fitness.findings[0].sentence()


def test_a_control_set_that_is_not_the_first_is_the_current_one(tmp_path: Path) -> None:
    other = r"ControlSet003\Control\ComputerName\ComputerName"
    files = hives(state_ini(READY), {"Select": {"Current": 3}, other: {"ComputerName": "OTHER"}})
    (system,) = examine_disk(RUN, str(windows_disk(tmp_path, state_ini(READY), tag=True, files=files))).systems
    assert (system.computer_name, system.architecture) == ("OTHER", "")


@pytest.mark.parametrize(
    ("hive", "way", "words"),
    [
        ("SYSTEM", "missing", "there is no /Windows/System32/config/SYSTEM"),
        ("SOFTWARE", "empty", "does not begin with regf"),
        ("SYSTEM", "zeros", "does not begin with regf"),
        ("SOFTWARE", "cut", "it is truncated"),
        ("SYSTEM", "a page of zeros", "its bin at 0x0 is damaged"),
        ("SYSTEM", "unwritten", "and it has no log of that write"),
    ],
)
def test_a_windows_whose_registry_can_not_be_read_is_in_an_unknown_state(
    tmp_path: Path, hive: str, way: str, words: str
) -> None:
    files = hives(state_ini(READY))
    content = files.pop(f"{CONFIG}/{hive}")
    if way != "missing":
        files[f"{CONFIG}/{hive}"] = {
            "empty": b"",
            "zeros": bytes(len(content)),
            "cut": content[: len(content) - 512],
            "a page of zeros": content[:4096] + bytes(4096) + content[8192:],
            "unwritten": unwritten(content),
        }[way]
    fitness = examine_disk(RUN, str(windows_disk(tmp_path, state_ini(READY), tag=True, files=files)))
    assert (names(fitness), fitness.generalization, fitness.warnings) == (["unknown_state"], "unknown", [])
    sentence = fitness.findings[0].sentence()
    assert (
        words in sentence
        and sentence.count("sysprep /generalize") == 1
        and f"the hive {hive} can't be read" in sentence
    )
    (system,) = fitness.systems
    known = (system.edition, system.build, system.architecture, system.computer_name)
    assert known == (("Professional", "22631", "", "") if hive == "SYSTEM" else ("", "", "amd64", "REFERENCE"))


@pytest.mark.parametrize("finished", [True, False])
def test_what_only_the_logs_of_the_hives_know_counts(tmp_path: Path, finished: bool) -> None:
    """A Windows that was started since, and whose hives were not written since; and the other way round."""
    ready = hives(state_ini(READY))
    started = hives(state_ini("IMAGE_STATE_COMPLETE"), {"Setup": {"SetupType": 0, "CmdLine": ""}})
    before, after = (started, ready) if finished else (ready, started)
    files = {path: unwritten(hive) for path, hive in before.items()}
    files.update({f"{path}.LOG1": new_log([hive, after[path]], 1) for path, hive in before.items()})
    fitness = examine_disk(RUN, str(windows_disk(tmp_path, state_ini(READY), tag=True, files=files)))
    assert names(fitness) == ([] if finished else ["not_generalized"])
    assert fitness.generalization == ("generalized" if finished else "not generalized")


def test_what_is_unusual_about_a_windows_is_said(tmp_path: Path) -> None:
    files = hives(
        state_ini(READY), {SESSION: {"BootExecute": ["autocheck autochk /p \\??\\C:", "autocheck autochk *"]}}
    )
    answers = "<unattend><ComputerName> REFERENCE </ComputerName></unattend>"
    files = {path.replace("Windows", "WINNT", 1): content for path, content in files.items()}
    files["WINNT/Panther/unattend.xml"] = answers.encode("utf-16")
    files["WINNT/Setup/State/State.ini"] = state_ini(READY)
    files[TAG.replace("Windows", "WINNT")] = b""
    fitness = examine_disk(RUN, str(windows_disk(tmp_path, None, tag=False, files=files)))
    assert names(fitness) == []
    said = "\n".join(fitness.warnings)
    for words in ("lies in /WINNT", "check of a disk", "autochk /p \\??\\C:", "ComputerName REFERENCE"):
        assert words in said
    assert len(fitness.warnings) == 3


@pytest.mark.parametrize("hinted", ["", "<ComputerName>*</ComputerName>", "<ComputerName></ComputerName>"])
def test_what_is_usual_is_not_said(tmp_path: Path, hinted: str) -> None:
    files = hives(state_ini(READY), {SESSION: {"BootExecute": ["autocheck autochk *"]}})
    files["Windows/Panther/unattend.xml"] = hinted.encode()
    fitness = examine_disk(RUN, str(windows_disk(tmp_path, state_ini(READY), tag=True, files=files)))
    assert (names(fitness), fitness.warnings) == ([], [])


def test_hives_of_another_maker_are_read_as_another_reader_does(tmp_path: Path) -> None:
    needs("hivexsh", "hivexget")
    path = tmp_path / "hive"
    path.write_bytes(make_hive({"Setup": {}}))
    lines = [f"cd \\\nadd Key {number:03}" for number in range(300)]
    lines += [
        "cd \\Key 123",
        "setval 3",
        "Text",
        "string:some text",
        "Number",
        "dword:4000000000",
        "Several",
        "hex:7:61,00,00,00,62,00,00,00,00,00",
    ]
    script = "\n".join([*lines, "commit", ""])
    subprocess.run(["hivexsh", "-w", path], input=script, text=True, check=True, capture_output=True)
    with open(path, "r+b") as file:
        hive = Hive(file)
        assert hive.value(r"\key 123", "TEXT") == "some text"
        assert (hive.value("Key 123", "Number"), hive.value("Key 123", "Several")) == ("4000000000", "a\nb")
        assert (hive.value("Key 299", "Number"), hive.value("Key 300", "Number"), hive.value("Setup", "x")) == (
            "",
            "",
            "",
        )
    for name, value in (("Text", "some text"), ("Several", "a\nb")):
        path.write_bytes(make_hive({r"One\Two": {"Text": "some text", "Several": ["a", "b"]}}))
        done = subprocess.run(["hivexget", path, r"\One\Two", name], text=True, check=True, capture_output=True)
        assert done.stdout.strip() == value


def test_names_are_found_in_any_case_and_the_exact_one_first(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    with open(volume, "wb") as file:
        file.truncate(32 * MIB)
    subprocess.run([*NTFS, volume], check=True, capture_output=True)
    with NtfsVolume(volume) as ntfs:
        ntfs.write("WINDOWS/system32/Config/System", b"one")
        ntfs.write("data/File", b"first")
        ntfs.write("Data/File", b"second")
    tree = NtfsTree(RUN, str(volume))
    assert tree.find("/Windows/System32/config/SYSTEM") == "/WINDOWS/system32/Config/System"
    assert tree.read("/windows/SYSTEM32/config/system") == b"one"
    assert (tree.read("/data/file"), tree.read("/Data/file")) == (b"first", b"second")
    assert tree.find("/windows/nothing") is None and tree.read("/windows/nothing/at/all") is None


def mirror_record(disk: Path, number: int) -> None:
    """Have the copy of a record of the MFT be as the record is."""
    with open(disk, "rb") as file:
        file.seek(START)
        boot = file.read(512)
        offset, _record = ntfs_record(disk, number)
        file.seek(START + offset)
        record = file.read(1024)
    (mirror,) = struct.unpack_from("<Q", boot, 56)
    cluster = boot[13] * struct.unpack_from("<H", boot, 11)[0]
    patch(disk, mirror * cluster + number * 1024, record)


def hibernate(node: Path) -> None:
    with NtfsVolume(node) as ntfs:
        ntfs.write("hiberfil.sys", b"HIBR" + bytes(8188))


@pytest.mark.parametrize(
    ("state", "name", "words"),
    [
        ("hibernated", "hibernated", "powercfg /h off"),
        ("dirty", "dirty", "marked for a check"),
        ("unclean log", "dirty", "chkdsk"),
    ],
)
def test_all_reasons_are_said_at_once(tmp_path: Path, state: str, name: str, words: str) -> None:
    """Also of a file system that nobody should write to, its files are looked at."""
    disk = windows_disk(tmp_path, state_ini("IMAGE_STATE_COMPLETE"), tag=False)
    if state == "hibernated":
        with partition_of(disk) as node:
            hibernate(node)
    elif state == "dirty":
        ntfs_dirty(disk)
        mirror_record(disk, 3)
    else:
        ntfs_unclean_log(disk)
    before = disk.read_bytes()
    fitness = examine_disk(RUN, str(disk))
    assert names(fitness) == [name, "not_generalized"]
    assert words in fitness.findings[0].sentence()
    assert disk.read_bytes() == before


def test_files_that_can_not_be_read_are_no_verdict_on_them(tmp_path: Path) -> None:
    disk = windows_disk(tmp_path, state_ini("IMAGE_STATE_COMPLETE"), tag=False)
    ntfs_dirty(disk)  # and the copy of the record says otherwise
    fitness = examine_disk(RUN, str(disk))
    assert (names(fitness), fitness.generalization) == (["dirty", "unknown_state"], "unknown")
    assert "its files can't be read" in fitness.findings[1].sentence()


@pytest.mark.parametrize("place", [0x4000, 0x10000])
def test_what_lies_where_a_disk_can_not_be_read_is_not_nothing(tmp_path: Path, place: int) -> None:
    """blkid says that there is nothing, in the same words as of an empty partition."""
    disk = windows_disk(tmp_path, state_ini("IMAGE_STATE_COMPLETE"), tag=False)
    with faulty_disk(disk, tmp_path / "faulty") as faulty:
        faulty.fail(read=[(START + place, START + place + 4096)])
        fitness = examine_disk(RUN, faulty.device)
    assert (names(fitness), fitness.generalization) == (["unknown_state"], "unknown")
    assert "so blkid can't tell what lies there: Input/output error" in fitness.findings[0].sentence()


SIZED = {
    "ext4": (["mkfs.ext4", "-q", "-F"], SIZE),
    "vfat": (["mkfs.fat", "-F", "32"], SIZE),
    "exfat": (["mkfs.exfat"], SIZE),
    "ntfs": (NTFS, SIZE),
    "xfs": (["mkfs.xfs", "-q", "-f"], 320 * MIB),
    "btrfs": (["mkfs.btrfs", "-q", "-f"], 160 * MIB),
}


@pytest.mark.parametrize("kind", SIZED)
def test_a_file_system_says_its_size_and_what_of_it_is_used(tmp_path: Path, kind: str) -> None:
    make, size = SIZED[kind]
    needs(make[0])
    (facts,) = examine_disk(RUN, str(single(tmp_path, size, make))).partitions
    assert (facts.content, facts.clean) == (kind, True)
    assert facts.file_system_size and size - 64 * 1024 <= facts.file_system_size <= size
    if kind == "btrfs":
        assert facts.used is None
    else:
        assert facts.used and 0 < facts.used < size // 2


SMALLER = {
    "ext4": 'mkfs.ext4 -q -F "$0" 32M',
    "vfat": 'mkfs.fat -F 32 -s 1 "$0" 32768',
    "ntfs": 'mkntfs -Q -q -F "$0" 65536',
    "xfs": 'mkfs.xfs -q -f -d size=320m "$0"',
}


@pytest.mark.parametrize("kind", SMALLER)
def test_no_more_is_used_of_a_file_system_than_it_has_although_its_partition_is_larger(
    tmp_path: Path, kind: str
) -> None:
    needs(SMALLER[kind].split()[0])
    size, partition = (320 * MIB, 400 * MIB) if kind == "xfs" else (32 * MIB, 64 * MIB)
    (facts,) = examine_disk(RUN, str(single(tmp_path, partition, ["sh", "-c", SMALLER[kind]]))).partitions
    assert facts.file_system_size and size - MIB < facts.file_system_size <= size
    assert facts.used and 0 < facts.used < size // 2


def test_a_btrfs_that_was_not_unmounted_after_a_sync_of_a_file_is_dirty(tmp_path: Path) -> None:
    """Its log is what fsync wrote since the last commit: the disk is copied in that moment, as a crash would leave it."""
    needs("mkfs.btrfs")
    make, size = SIZED["btrfs"]
    disk = single(tmp_path, size, make)
    crashed = tmp_path / "crashed"
    with mounted(disk, size, tmp_path / "mount") as folder:
        subprocess.run(["sync", "-f", folder], check=True)
        with open(folder / "file", "wb") as file:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
        shutil.copy(disk, crashed)
    fitness = examine_disk(RUN, str(crashed))
    assert names(fitness) == ["dirty"]
    assert "its log was not replayed" in fitness.findings[0].sentence()
    assert names(examine_disk(RUN, str(disk))) == []


def test_encryption_is_seen(tmp_path: Path) -> None:
    """By signatures; blkid(8) has them from the kernel's and from Microsoft's formats."""
    disk = single(tmp_path, 16 * MIB, ["true"])
    boot = bytearray(512)
    boot[:11] = b"\xeb\x58\x90-FVE-FS-"
    boot[510:] = b"\x55\xaa"
    patch(disk, 0, bytes(boot))
    patch(disk, 176, (0x2000).to_bytes(8, "little"))
    patch(disk, 0x2000, b"-FVE-FS-" + (64).to_bytes(2, "little") + (2).to_bytes(2, "little"))
    bitlocker = examine_disk(RUN, str(disk))
    assert bitlocker.partitions[0].content == "BitLocker"
    assert names(bitlocker) == ["encrypted"]
    assert "manage-bde" in bitlocker.findings[0].sentence()
    to_go = boot[:]
    to_go[3:11] = b"MSWIN4.1"
    to_go[424:440] = bytes.fromhex("3bd67749292ed84a8399f6a339e3d001")
    patch(disk, 0, bytes(to_go))
    patch(disk, 440, (0x2000).to_bytes(8, "little"))
    assert (examine_disk(RUN, str(disk)).partitions[0].content, names(examine_disk(RUN, str(disk)))) == (
        "BitLocker",
        ["encrypted"],
    )
    patch(disk, 0, b"LUKS\xba\xbe\x00\x01aes".ljust(592, b"\0"))
    luks = examine_disk(RUN, str(disk))
    assert (luks.partitions[0].content, names(luks)) == ("crypto_LUKS", ["encrypted"])


def test_files_of_ext4_are_read_without_mounting_it(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    root = tmp_path / "root"
    (root / "a folder").mkdir(parents=True)
    (root / "a folder/file").write_bytes(b"content\n" * 3)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", root, volume, "16M"], check=True)
    tree = ExtTree(RUN, str(volume))
    assert tree.read("/a folder/file") == b"content\n" * 3
    assert tree.names("/nothing") == [] and tree.read("/nothing") is None
    assert set(tree.names("/")) >= {"a folder", "lost+found"}
    large = os.urandom(3 << 20)
    (root / "large").write_bytes(large)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", root, volume, "16M"], check=True)
    tree.save("/large", str(tmp_path / "saved"))
    assert (tmp_path / "saved").read_bytes() == large
    with pytest.raises(ImagingError, match="no file /nothing"):
        tree.save("/nothing", str(tmp_path / "not there"))


def test_a_missing_program_is_said_and_no_verdict(tmp_path: Path) -> None:
    needs("ntfsls")
    disk = windows_disk(tmp_path, state_ini(READY), tag=True)
    fitness = examine_disk(runner("ntfsls"), str(disk))
    assert (names(fitness), fitness.generalization) == (["unknown_state"], "unknown")
    assert "ntfsls is not installed" in fitness.findings[0].sentence()


# --- the playbooks ---


@pytest.fixture(scope="module", name="lab")
def fixture_lab(tiny_plan: Plan) -> Iterator[Lab]:
    """A lab whose reference has a Windows that was not generalized, and is hibernated."""
    with running_lab(tiny_plan, laptops=1) as lab:
        with attached(Path(lab.reference.disk), *ntfs_part(lab.reference.disk)) as loop:
            node = Path(loop)
            with NtfsVolume(node) as ntfs:
                ntfs.remove(STATE_INI)
                ntfs.write(STATE_INI, state_ini("IMAGE_STATE_COMPLETE"))
            hibernate(node)
        yield lab


def ntfs_part(disk: str, kind: str = "ntfs") -> list[str]:
    """Where the NTFS, or another file system, of a disk lies, as losetup's options."""
    table = read_partition_table(RUN, disk)
    assert table
    (found,) = (each for each in table.partitions if detect(RUN, disk, each.start, each.size).type == kind)
    return part(found.start, found.size)


def capture(lab: Lab, store: Path, *more: str) -> Outcome:
    return playbook(lab, "capture", "-e", f"imaging_store={store}", "-e", "imaging_image=unfit", *more)


def test_what_is_not_fit_is_refused_unless_it_is_allowed_by_name(lab: Lab, store: Path) -> None:
    refused = capture(lab, store).failures()[lab.reference.name]
    for words in (
        "not fit to be captured",
        "[not_generalized]",
        "[hibernated]",
        "imaging_allow=hibernated,not_generalized",
    ):
        assert words in refused, refused
    partly = capture(lab, store, "-e", "imaging_allow=hibernated").failures()[lab.reference.name]
    assert "[not_generalized]" in partly and "[hibernated]" not in partly
    assert stored(store) == []
    allowed = capture(lab, store, "-e", "imaging_allow=not_generalized,hibernated")
    assert allowed.status == 0, allowed.stdout
    (result,) = allowed.of("image_capture")
    assert [part["method"] for part in result.result["partitions"] if part["content"] == "ntfs"] == ["whole"]
    listed = playbook(lab, "images", "-e", f"imaging_store={store}")
    assert listed.of("image_info")[0].result["images"][0]["generalization"] == "not generalized"
    restored = playbook(lab, "restore", "-e", f"imaging_store={store}", "-e", "imaging_confirm_erase=true")
    assert restored.status == 0, restored.stdout
    assert "was not generalized by sysprep" in restored.stdout


def test_what_is_fit_is_captured_as_that(tiny_plan: Plan, store: Path, tmp_path: Path) -> None:
    with running_lab(tiny_plan, laptops=1) as lab:
        (tmp_path / "machine-id").write_text("0123456789abcdef0123456789abcdef\n")
        with attached(Path(lab.reference.disk), *ntfs_part(lab.reference.disk, "ext4")) as node:
            for name in ("/etc/machine-id", "/etc/ssh_host_rsa_key"):
                tool("debugfs", "-w", "-R", f"write {tmp_path}/machine-id {name}", node)
            tool("debugfs", "-w", "-R", "mkdir /etc/ssh", node)
            tool("debugfs", "-w", "-R", "ln /etc/ssh_host_rsa_key /etc/ssh/ssh_host_rsa_key", node)
        captured = capture(lab, store)
        assert captured.status == 0, captured.stdout
        assert captured.stdout.count("will share: machine-id, SSH host keys") == 1
        assert "sh -c 'truncate -s 0 /etc/machine-id; rm -f /etc/ssh/ssh_host_*'" in captured.stdout
        listed = playbook(lab, "images", "-e", f"imaging_store={store}")
        assert "copies share machine-id, SSH host keys" in listed.stdout
        assert listed.of("image_info")[0].result["images"][0]["generalization"] == "generalized"
        assert "Windows 11 Pro 23H2 (Professional, build 22631, amd64, REFERENCE); " in listed.stdout
        restored = playbook(lab, "restore", "-e", f"imaging_store={store}", "-e", "imaging_confirm_erase=true")
        assert restored.status == 0, restored.stdout
        assert "was not generalized by sysprep" not in restored.stdout
