# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is a Linux found on a disk, and what its copies would share? Real file systems, with the files that matter."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.disk.file_tree import FileTree
from ansible_collections.fleet.imaging.plugins.module_utils.disk.filesystems.ext import ExtTree
from ansible_collections.fleet.imaging.plugins.module_utils.disk.filesystems.registry import file_system
from ansible_collections.fleet.imaging.plugins.module_utils.disk.fitness import Fitness, examine_disk
from ansible_collections.fleet.imaging.plugins.module_utils.disk.mounted_tree import mounted_tree
from ansible_collections.fleet.imaging.plugins.module_utils.disk.systems_linux import IDENTITIES, find_hibernation
from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.tests.integration.disk_files import MIB, RUN, attached, needs, needs_loop_devices
from ansible_collections.fleet.imaging.tests.integration.faults import wait_until_detached
from ansible_collections.fleet.imaging.tests.lab.tools import run as tool

pytestmark = needs_loop_devices

RELEASE = 'NAME="Some Linux"\nPRETTY_NAME="Some Linux 12 (name)"\n'
PLAIN = {"usr/lib/os-release": RELEASE, "etc/passwd": "root:x:0:0::/:/bin/sh\n"}
LINK = "-> "
"""What a file's text begins with when it is a symbolic link, followed by its target."""


def fill(root: Path, files: Mapping[str, str]) -> Path:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if text.startswith(LINK):
            (root / path).symlink_to(text[len(LINK) :])
        else:
            (root / path).write_text(text)
    return root


def ext4(folder: Path, files: Mapping[str, str]) -> Path:
    """An ext4 with files, in a file."""
    root = fill(folder / "root", files)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", root, folder / "ext4", "12M"], check=True)
    return folder / "ext4"


def disk_of(path: Path, volumes: Sequence[Path]) -> Path:
    """A GPT disk whose partitions have what is in files."""
    sizes = [volume.stat().st_size for volume in volumes]
    with open(path, "wb") as disk:
        disk.truncate(sum(sizes) + 2 * MIB)
    lines = "".join(f"size={size // 512}, type=linux\n" for size in sizes)
    tool("sfdisk", "--quiet", path, stdin=f"label: gpt\n{lines}")
    start = MIB
    for volume, size in zip(volumes, sizes, strict=True):
        tool("dd", f"if={volume}", f"of={path}", "bs=1M", f"seek={start // MIB}", "conv=notrunc,sparse", "status=none")
        start += size
    return path


def examined(folder: Path, *systems: Mapping[str, str]) -> Fitness:
    """What is said of a disk with an ext4 for each of them."""
    volumes = []
    for number, files in enumerate(systems):
        (folder / str(number)).mkdir(parents=True)
        volumes.append(ext4(folder / str(number), files))
    return examine_disk(RUN, str(disk_of(folder / "disk", volumes)))


def what(fitness: Fitness) -> list[str]:
    (system,) = fitness.systems
    return [each.what for each in system.shared]


def test_a_linux_is_described(tmp_path: Path) -> None:
    fitness = examined(tmp_path, {**PLAIN, "etc/hostname": "reference\n"})
    (system,) = fitness.systems
    assert (system.kind, system.name, system.computer_name, system.partition) == (
        "linux",
        "Some Linux 12 (name)",
        "reference",
        1,
    )
    assert (fitness.findings, fitness.warnings, fitness.generalization) == ([], [], "unknown")
    assert (system.evidence, system.shared, system.architecture) == ([], [], "")


IDENTITY = {
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "var/lib/dbus/machine-id": "0123456789abcdef0123456789abcdef\n",
    "etc/ssh/ssh_host_ed25519_key": "key",
    "var/lib/NetworkManager/secret_key": "key",
    "var/lib/NetworkManager/internal-1-eth0.lease": "lease",
    "var/lib/dhcp/dhclient.eth0.leases": "lease",
    "var/lib/dhclient/dhclient-1-eth0.lease": "lease",
    "var/lib/dhcpcd/duid": "00:01",
    "etc/dhcpcd.duid": "00:01",
    "var/lib/wicked/duid.xml": "<duid/>",
    "var/lib/systemd/random-seed": "seed",
    "var/lib/urandom/random-seed": "seed",
    "var/lib/systemd/credential.secret": "key",
    "etc/iscsi/initiatorname.iscsi": "## a comment\nInitiatorName=iqn.1993-08.org.debian:01:abc\n",
    "etc/nvme/hostnqn": "nqn.2014-08.org.nvmexpress:uuid:1\n",
    "etc/nvme/hostid": "1\n",
    "etc/krb5.keytab": "key",
    "etc/udev/rules.d/70-persistent-net.rules": "rule",
    "var/lib/cloud/instance/datasource": "x",
}
"""What makes a Linux one among others."""

NO_IDENTITY = {
    "etc/machine-id": "uninitialized\n",
    "var/lib/dbus/machine-id": f"{LINK}/etc/machine-id",
    "etc/ssh/ssh_host_ed25519_key.pub.old": "not a key",
    "etc/iscsi/initiatorname.iscsi": "GenerateName=yes\n# InitiatorName=iqn.example\n",
    "etc/nvme/hostnqn": "",
    "var/lib/NetworkManager/timestamps": "x",
    "var/lib/cloud/seed/x": "x",
}


def test_all_that_copies_would_share_is_named_and_nothing_else_is(tmp_path: Path) -> None:
    fitness = examined(tmp_path / "all", {**PLAIN, **IDENTITY})
    assert what(fitness) == [identity.what for identity in IDENTITIES]
    assert fitness.findings == []
    assert what(examined(tmp_path / "none", {**PLAIN, **NO_IDENTITY})) == []


def test_the_commands_clear_what_they_are_given_for(tmp_path: Path) -> None:
    (system,) = examined(tmp_path / "before", {**PLAIN, **IDENTITY}).systems
    root = tmp_path / "before/0/root"
    for shared in system.shared:
        if shared.what != "state of cloud-init":  # its program is not in there
            subprocess.run(["sh", "-c", shared.clear.replace(" /", f" {root}/")], check=True)
    (tmp_path / "after").mkdir()
    shutil.move(root, tmp_path / "after/root")
    cleared = disk_of(tmp_path / "disk", [ext4(tmp_path / "after", {})])
    assert what(examine_disk(RUN, str(cleared))) == ["state of cloud-init"]
    assert (tmp_path / "after/root/etc/machine-id").read_text() == ""


def test_the_machine_of_a_linux_is_that_of_its_programs(tmp_path: Path) -> None:
    """Also where they are found through a link only."""
    (tmp_path / "root/usr/bin").mkdir(parents=True)
    shutil.copy("/usr/bin/mount", tmp_path / "root/usr/bin/env")
    volume = ext4(tmp_path, {"etc/os-release": "NAME=x\n", "bin": f"{LINK}usr/bin"})
    (system,) = examine_disk(RUN, str(disk_of(tmp_path / "disk", [volume]))).systems
    assert (system.name, system.architecture) == ("Linux", {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine])


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({"etc/os-release": f"{LINK}../usr/share/x/release", "usr/share/x/release": RELEASE}, "Some Linux 12 (name)"),
        (
            {
                "etc/os-release": f"{LINK}/etc/static/os-release",
                "etc/static": f"{LINK}/nix/store/etc",
                "nix/store/etc/os-release": f"{LINK}/nix/store/{'hash' * 20}-os-release",
                f"nix/store/{'hash' * 20}-os-release": RELEASE,
            },
            "Some Linux 12 (name)",
        ),
        ({"etc/os-release": f"{LINK}../../../../usr/release", "usr/release": RELEASE}, "Some Linux 12 (name)"),
        ({"etc/os-release": f"{LINK}os-release"}, "Linux"),
        ({"etc/os-release": f"{LINK}/not/there"}, "Linux"),
        ({"etc/passwd": "root:x:0:0::/:/bin/sh\n"}, "Linux"),
    ],
)
def test_a_linux_is_found_by_a_link_and_without_its_name(tmp_path: Path, files: dict[str, str], name: str) -> None:
    (system,) = examined(tmp_path, files).systems
    assert (system.kind, system.name) == ("linux", name)


def files_of(kind: str, node: str) -> contextlib.AbstractContextManager[FileTree]:
    files = file_system(kind).files
    assert files is not None
    return files.open(RUN, node)


def test_links_never_lead_to_files_of_this_machine(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("PRETTY_NAME=here\n")
    (system,) = examined(tmp_path / "disk", {"etc/os-release": f"{LINK}{secret}"}).systems
    assert system.name == "Linux"
    with (
        attached(xfs(tmp_path, {"etc/os-release": f"{LINK}{secret}"}), "--read-only") as node,
        files_of("xfs", node) as tree,
    ):
        assert tree.read("/etc/os-release") is None and tree.link("/etc/os-release") == str(secret)
        assert tree.read("/../../../../../../proc/self/status") is None


APART = {
    "etc/passwd": "root:x:0:0::/:/bin/sh\n",
    "etc/os-release": f"{LINK}../usr/lib/os-release",
    "etc/fstab": "UUID=1 / ext4 defaults 0 1\n# a comment\nUUID=2 /usr ext4 ro 0 2\nUUID=3 /var/ ext4 defaults 0 2\n",
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "usr/.keep": "",
    "var/.keep": "",
}
USR = {"lib/os-release": RELEASE, "bin/true": "x"}
VAR = {"lib/systemd/random-seed": "seed", "lib/dbus/machine-id": "0123\n", "cache/x": "", "log/x": ""}


def test_parts_with_file_systems_of_their_own_are_put_together(tmp_path: Path) -> None:
    fitness = examined(tmp_path, APART, USR, VAR)
    (system,) = fitness.systems
    assert (system.name, system.partition, system.apart, fitness.warnings) == ("Some Linux 12 (name)", 1, [], [])
    assert [each.what for each in system.shared] == ["machine-id", "machine-id of D-Bus", "random seed"]
    assert system.shared[1].clear == "rm -f /var/lib/dbus/machine-id"


def test_parts_that_are_not_there_are_said(tmp_path: Path) -> None:
    fitness = examined(tmp_path / "alone", APART)
    (system,) = fitness.systems
    assert (system.name, system.apart) == ("Linux", ["/usr", "/var"])
    assert "has /usr and /var in file systems of their own, which were not found" in fitness.warnings[0]
    fitness = examined(tmp_path / "parts", USR, VAR)
    assert fitness.systems == []
    assert "Partition 1 holds the /usr of a Linux (Some Linux 12 (name)): it is not known which" in fitness.warnings[0]
    assert "Partition 2 holds the /var of a Linux: it is not known which" in fitness.warnings[1]


def test_of_two_linux_systems_none_gets_the_parts_of_the_other(tmp_path: Path) -> None:
    fitness = examined(tmp_path, APART, PLAIN, USR)
    assert [(system.name, system.partition) for system in fitness.systems] == [
        ("Linux", 1),
        ("Some Linux 12 (name)", 2),
    ]
    assert len(fitness.warnings) == 2


def xfs(folder: Path, files: Mapping[str, str]) -> Path:
    """An XFS with files, in a file, by a prototype (mkfs.xfs(8))."""
    needs("mkfs.xfs")
    sources = folder / "sources"
    sources.mkdir()
    tree: dict[str, object] = {}
    for path, text in files.items():
        *above, name = path.split("/")
        place = tree
        for step in above:
            place = place.setdefault(step, {})  # type: ignore[assignment]
        place[name] = text
    lines = ["boot", "0 0", "d--755 0 0"]

    def write(place: Mapping[str, object]) -> None:
        for name, content in place.items():
            if isinstance(content, dict):
                lines.append(f"{name} d--755 0 0")
                write(content)
            elif str(content).startswith(LINK):
                lines.append(f"{name} l--777 0 0 {str(content)[len(LINK) :]}")
            else:
                source = sources / str(len(lines))
                source.write_text(str(content))
                lines.append(f"{name} ---644 0 0 {source}")
        lines.append("$")

    write(tree)
    (folder / "prototype").write_text("\n".join(lines) + "\n")
    volume = folder / "xfs"
    with open(volume, "wb") as file:
        file.truncate(304 * MIB)
    subprocess.run(["mkfs.xfs", "-q", "-p", folder / "prototype", volume], check=True)
    return volume


def btrfs(folder: Path, files: Mapping[str, str]) -> Path:
    """A btrfs with files, in a file."""
    needs("mkfs.btrfs")
    volume = folder / "btrfs"
    with open(volume, "wb") as file:
        file.truncate(128 * MIB)
    root = fill(folder / "root", files)
    subprocess.run(["mkfs.btrfs", "-q", "-r", root, volume], check=True, capture_output=True)
    return volume


OTHER_FILE_SYSTEMS = {"xfs": xfs, "btrfs": btrfs}
BY_LINK = {
    "etc/os-release": f"{LINK}/usr/lib/os-release",
    "usr/lib/os-release": RELEASE,
    "etc/hostname": "reference\n",
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "var/lib/dbus/machine-id": f"{LINK}/etc/machine-id",
}


@pytest.mark.parametrize("kind", OTHER_FILE_SYSTEMS)
def test_a_linux_on_other_file_systems_is_found_and_nothing_is_written(tmp_path: Path, kind: str) -> None:
    disk = disk_of(tmp_path / "disk", [OTHER_FILE_SYSTEMS[kind](tmp_path, BY_LINK)])
    before = disk.read_bytes()
    fitness = examine_disk(RUN, str(disk))
    (system,) = fitness.systems
    assert (system.name, system.computer_name) == ("Some Linux 12 (name)", "reference")
    assert what(fitness) == ["machine-id"]
    assert (fitness.findings, fitness.warnings) == ([], [])
    assert disk.read_bytes() == before
    # A file system that was still mounted, wherever, would keep its loop device.
    wait_until_detached(disk)


@pytest.mark.parametrize("kind", OTHER_FILE_SYSTEMS)
def test_files_are_read_by_the_kernel_for_this_process_alone(tmp_path: Path, kind: str) -> None:
    files = {"a/file": "content\n" * 3, "a/link": f"{LINK}file", "a/folder/x": ""}
    with attached(OTHER_FILE_SYSTEMS[kind](tmp_path, files), "--read-only") as node, files_of(kind, node) as tree:
        assert sorted(tree.names("/a")) == ["file", "folder", "link"]
        assert tree.names("/nothing") == [] and tree.names("/a/file") == []
        assert tree.read("/a/link") == b"content\n" * 3 and tree.head("/a/file", 4) == b"cont"
        assert (tree.link("/a/link"), tree.link("/a/file"), tree.link("/no")) == ("file", None, None)
        assert tree.content("/a/folder") is None and tree.read("/nothing") is None
        tree.save("/a/file", str(tmp_path / "saved"))
        with pytest.raises(ImagingError, match="/nothing can't be copied"):
            tree.save("/nothing", str(tmp_path / "not there"))
    assert (tmp_path / "saved").read_bytes() == b"content\n" * 3


def test_a_kernel_that_does_not_know_a_file_system_is_named_for_that(tmp_path: Path) -> None:
    with (
        pytest.raises(ImagingError, match="it does not know this file system"),
        mounted_tree("no such", "/dev/null", {}),
    ):
        pass


def test_systems_and_hibernation_in_subvolumes_of_btrfs_are_found(tmp_path: Path) -> None:
    volume = btrfs(tmp_path, {"data/etc/os-release": RELEASE})  # a folder is no subvolume
    (tmp_path / "mount").mkdir()
    with attached(volume) as node:
        tool("mount", node, tmp_path / "mount")
        try:
            for subvolume, name in (("@", "One"), ("other", "Other")):
                tool("btrfs", "subvolume", "create", tmp_path / "mount" / subvolume)
                release = {"etc/os-release": f"{LINK}/release", "release": f"PRETTY_NAME={name}\n"}
                fill(tmp_path / "mount" / subvolume, release)
            tool("btrfs", "subvolume", "create", tmp_path / "mount/@swap")
            fill(tmp_path / "mount/@", {"etc/fstab": "/swap/area none swap defaults 0 0\n"})
            (tmp_path / "mount/@swap/area").write_bytes(bytes(4086) + b"S1SUSPEND\0" + bytes(4096))
        finally:
            tool("umount", tmp_path / "mount")
    fitness = examine_disk(RUN, str(disk_of(tmp_path / "disk", [volume])))
    assert [system.name for system in fitness.systems] == ["One", "Other"]
    assert fitness.warnings == []
    (finding,) = fitness.findings
    assert finding.name == "hibernated" and "swap file /area" in finding.sentence()


def test_what_lies_beside_the_default_subvolume_of_btrfs_is_looked_into(tmp_path: Path) -> None:
    """As on a system that starts from a snapshot: a mount without options shows that alone."""
    volume = btrfs(tmp_path, {"readme": ""})
    top, system = tmp_path / "mount", tmp_path / "mount/@/.snapshots/1/snapshot"
    top.mkdir()
    fstab = "UUID=1 / btrfs defaults 0 0\nUUID=1 /var btrfs subvol=/@/var 0 0\n/swap/area none swap defaults 0 0\n"
    with attached(volume) as node:
        tool("mount", node, top)
        try:
            for subvolume in ("@", "@/.snapshots", "@/var", "@/swap"):
                tool("btrfs", "subvolume", "create", top / subvolume)
            for number in ("1", "2"):
                (top / "@/.snapshots" / number).mkdir()
                tool("btrfs", "subvolume", "create", top / "@/.snapshots" / number / "snapshot")
                fill(top / "@/.snapshots" / number / "snapshot", {**PLAIN, "etc/fstab": fstab})
            fill(top / "@/var", {"lib/dbus/machine-id": "0123\n", "cache/x": "", "log/x": ""})
            (top / "@/swap/area").write_bytes(bytes(4086) + b"S1SUSPEND\0" + bytes(4096))
            tool("btrfs", "subvolume", "set-default", system)
        finally:
            tool("umount", top)
    fitness = examine_disk(RUN, str(disk_of(tmp_path / "disk", [volume])))
    assert ([found.name for found in fitness.systems], fitness.warnings) == (["Some Linux 12 (name)"], [])
    assert what(fitness) == ["machine-id of D-Bus"]
    assert [finding.name for finding in fitness.findings] == ["hibernated"]


def test_a_linux_that_ostree_keeps_is_found(tmp_path: Path) -> None:
    deployed = "ostree/deploy/some"
    newer = {f"{deployed}/deploy/b.0/{path}": text for path, text in {**PLAIN, "etc/machine-id": "0123\n"}.items()}
    older = {path.replace("/b.0/", "/a.1/"): text for path, text in newer.items()}
    rest = {
        f"{deployed}/deploy/a.1/etc/fstab": "/var/swap none swap sw 0 0\n",
        f"{deployed}/deploy/a.1/var/no/more": "an empty folder in which the other one is mounted",
        f"{deployed}/deploy/a.1.origin": "[origin]\n",
        f"{deployed}/var/lib/dbus/machine-id": f"{LINK}/etc/machine-id",
        f"{deployed}/var/lib/NetworkManager/secret_key": "key",
        f"{deployed}/var/swap": "\0" * 4086 + "S1SUSPEND\0" + "\0" * 65536,
    }
    fitness = examined(tmp_path, {**newer, **older, **rest})
    assert [system.name for system in fitness.systems] == ["Some Linux 12 (name)"]
    assert what(fitness) == ["machine-id", "key of NetworkManager"]
    assert [finding.name for finding in fitness.findings] == ["hibernated"]


def test_what_the_kernel_does_not_mount_may_hold_a_system(tmp_path: Path) -> None:
    """A btrfs of two devices, one of which is not there."""
    volume = btrfs(tmp_path, BY_LINK)
    other = tmp_path / "other"
    for path in (volume, other):
        with open(path, "wb") as file:
            file.truncate(128 * MIB)
    with attached(volume) as first, attached(other) as second:
        tool("mkfs.btrfs", "-q", "-f", "-d", "single", "-m", "raid1", first, second)
        tool("btrfs", "device", "scan", "--forget")
    fitness = examine_disk(RUN, str(disk_of(tmp_path / "disk", [volume])))
    assert fitness.systems == []
    assert "Partition 1 was not examined: this machine's kernel can't mount it read-only" in fitness.warnings[0]


@pytest.mark.parametrize("signature", [b"S1SUSPEND", b"ULSUSPEND", b"LINHIB0001"])
def test_a_linux_that_is_hibernated_in_a_swap_file_is(tmp_path: Path, signature: bytes) -> None:
    files = {**PLAIN, "etc/fstab": "/data/swap none swap sw 0 0\n/dev/sda5 none swap sw 0 0\n"}
    (tmp_path / "root/data").mkdir(parents=True)
    swap = tmp_path / "root/data/swap"
    swap.write_bytes(bytes(MIB))
    swap.chmod(0o600)
    subprocess.run(["mkswap", swap], check=True, capture_output=True)
    volume = ext4(tmp_path, files)
    assert find_hibernation(ExtTree(RUN, str(volume))) == ""
    with open(swap, "r+b") as file:
        file.seek(4096 - 10)
        file.write(signature.ljust(10, b"\0"))
    fitness = examine_disk(RUN, str(disk_of(tmp_path / "disk", [ext4(tmp_path, files)])))
    (finding,) = fitness.findings
    assert finding.name == "hibernated"
    assert "its swap file /data/swap" in finding.sentence() and "systemctl poweroff" in finding.sentence()
    assert "powercfg" not in finding.sentence()
