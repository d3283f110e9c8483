# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""live.yml builds a live system; here it is only looked at. test_live_system.py starts laptops from it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.tests.integration.playbooks import BIN, ROOT, Outcome, RunningPlaybook
from ansible_collections.fleet.imaging.tests.lab.live_system import LiveSystem, cached_live_system

BUILD_SECONDS = 1500.0
"""A build took 152 s of processor time, and 667 s by the clock on two processors with a load of 14."""

pytestmark = pytest.mark.timeout(BUILD_SECONDS + 300)


def live_yml(*arguments: str, path: str = "") -> Outcome:
    """Run live.yml on this machine, with programs found on another PATH if that is given."""
    command: list[str | Path] = [BIN / "ansible-playbook", ROOT / "playbooks/live.yml", *arguments]
    return RunningPlaybook(command, ROOT / "playbooks", {"PATH": path} if path else {}).wait(BUILD_SECONDS)


def output(*command: str | Path) -> str:
    """Return what a program prints; it must not fail."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module", name="live")
def fixture_live() -> LiveSystem:
    """A built live system."""
    live = cached_live_system()
    outcome = live_yml(*live.arguments())
    assert outcome.status == 0, outcome.stdout
    return live


@pytest.fixture(scope="module", name="listed")
def fixture_listed(live: LiveSystem) -> dict[str, str]:
    """What unsquashfs lists of the live system: mode, owner and size of files by their paths, and where links lead."""
    lines = output("unsquashfs", "-lln", "-d", "", live.build / "filesystem.squashfs").splitlines()
    found = [re.fullmatch(r"(\S+ \d+/\d+) +[\d,]+ \S+ \S+ (/[^>]*?)(?: -> (.*))?", line) for line in lines]
    return {each[2]: f"{each[1]} {each[3] or ''}".strip() for each in found if each}


def test_a_second_run_changes_nothing(live: LiveSystem) -> None:
    files = {path: path.stat().st_mtime_ns for path in live.build.iterdir()}
    outcome = live_yml(*live.arguments())
    assert outcome.status == 0 and not outcome.of("live_build")[0].result["changed"]
    assert {path: path.stat().st_mtime_ns for path in live.build.iterdir()} == files
    assert {path.name for path in live.build.iterdir()} == {
        *(".lock", "build.json", "filesystem.squashfs", "initrd", "live.iso", "vmlinuz"),
    }


def test_nobody_but_its_owner_can_read_what_has_the_host_key(live: LiveSystem) -> None:
    assert live.build.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o077 for path in live.build.iterdir() if path.name in live.record()["files"]} == {0}


def test_the_tools_that_the_playbooks_use_are_on_it(listed: dict[str, str]) -> None:
    programs = """partclone.extfs partclone.ntfs zstd ntfs-3g.probe ntfsresize fsck.exfat xfs_repair xfs_growfs btrfs e2fsck resize2fs fsck.fat mcopy
        sgdisk sfdisk efibootmgr hivexsh lvm mdadm cryptsetup smartctl python3 sshd lsblk blkid udevadm"""
    folders = ("/usr/bin", "/usr/sbin")
    assert [name for name in programs.split() if not any(f"{folder}/{name}" in listed for folder in folders)] == []
    assert any(path.endswith("/zstandard/__init__.py") for path in listed)


def test_keys_are_private_and_the_authoritys_is_not_there(live: LiveSystem, listed: dict[str, str]) -> None:
    host_keys = {path: text for path, text in listed.items() if path.startswith("/etc/ssh/ssh_host_")}
    assert set(host_keys) == {f"/etc/ssh/ssh_host_ed25519_key{ending}" for ending in ("", ".pub", "-cert.pub")}
    assert host_keys["/etc/ssh/ssh_host_ed25519_key"] == "-rw------- 0/0"
    assert listed["/root/.ssh/authorized_keys"] == "-rw------- 0/0"

    def content(path: str) -> str:
        return output("unsquashfs", "-cat", live.build / "filesystem.squashfs", path)

    assert content("root/.ssh/authorized_keys") == live.key.with_suffix(".pub").read_text()
    assert content("etc/ssh/ssh_host_ed25519_key") == (live.ca / "ssh_host_ed25519_key").read_text()
    assert "PasswordAuthentication no" in content("etc/ssh/sshd_config.d/fleet.conf")
    assert re.search(r"^root:[*!]", content("etc/shadow"), re.MULTILINE)


def test_nothing_is_activated_and_nothing_is_random(listed: dict[str, str], live: LiveSystem) -> None:
    for name in ("lvm2-monitor.service", "smartmontools.service", "sleep.target", "fstrim.timer", "mdmonitor.service"):
        assert listed[f"/etc/systemd/system/{name}"].endswith("/dev/null"), name
    for name in ("64-md-raid-assembly.rules", "69-lvm.rules"):
        assert listed[f"/etc/udev/rules.d/{name}"].endswith("/dev/null"), name
    assert output("unsquashfs", "-cat", live.build / "filesystem.squashfs", "etc/machine-id") == ""
    assert "/var/lib/systemd/random-seed" not in listed
    assert not [path for path in listed if "/drivers/net/wireless/" in path]


def test_the_iso_has_the_files_and_starts_by_bios_and_by_uefi(live: LiveSystem, tmp_path: Path) -> None:
    label = live.record()["label"]
    report = output("xorriso", "-indev", live.iso, "-toc", "-report_el_torito", "plain", "-report_system_area", "plain")
    assert f", {label}\n" in report
    assert re.search(r"El Torito boot img : +1 +BIOS +y +none", report)
    assert re.search(r"El Torito boot img : +2 +UEFI +y +none", report)
    assert "protective-msdos-label grub2-mbr" in report and "GPT" in report
    output("xorriso", "-osirrox", "on", "-indev", live.iso, "-extract", "/", tmp_path / "iso")
    for name in ("vmlinuz", "initrd", "filesystem.squashfs"):
        assert (tmp_path / "iso/live" / name).read_bytes() == (live.build / name).read_bytes()
    assert f"--label {label}" in (tmp_path / "iso/boot/grub/grub.cfg").read_text()


def test_the_efi_system_partition_has_the_signed_boot_loaders(live: LiveSystem) -> None:
    listed = output("sfdisk", "--dump", live.iso)
    found = re.search(r"start= *(\d+), size= *(\d+), type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B", listed)
    assert found, listed
    partition = f"{live.iso}@@{int(found[1]) * 512}"
    for name in ("BOOTX64.EFI", "grubx64.efi", "mmx64.efi"):
        content = subprocess.run(
            ["mtype", "-i", partition, f"::/EFI/BOOT/{name}"], check=True, capture_output=True
        ).stdout
        assert content.startswith(b"MZ") and b"Debian" in content, name
    assert live.record()["label"] in output("mtype", "-i", partition, "::/boot/grub/grub.cfg")


def test_check_mode_says_that_it_would_be_built_anew(live: LiveSystem) -> None:
    outcome = live_yml(*live.arguments(), "-e", "imaging_live_packages=nano", "--check")
    assert outcome.status == 0 and outcome.of("live_build")[0].result["changed"]
    assert "nano" not in " ".join(live.record()["packages"])


def refusal(tmp_path: Path, *arguments: str, path: str = "") -> str:
    """Return why nothing is built in a new folder, in which nothing is left."""
    live = cached_live_system()
    outcome = live_yml(*live.arguments(), "-e", f"imaging_live_folder={tmp_path}/new", *arguments, path=path)
    assert outcome.status == 2, outcome.stdout
    if (tmp_path / "new").exists():
        assert {each.name for each in (tmp_path / "new").iterdir()} <= {".lock"}
    return outcome.failures()["localhost"]


def test_without_a_network_it_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    said = refusal(tmp_path, "-e", "imaging_live_mirror=http://127.0.0.1:9/debian")
    assert "http://127.0.0.1:9/debian" in said and "imaging_live_mirror" in said


def test_a_package_that_does_not_exist_is_named(tmp_path: Path) -> None:
    assert "Unable to locate package no-such-package" in refusal(
        tmp_path, "-e", "imaging_live_packages=no-such-package"
    )


def test_missing_packages_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("ssh", "ssh-keygen", "tar", "sh", "apt-get"):
        (folder / name).symlink_to(f"/usr/bin/{name}")
    said = refusal(tmp_path, path=str(folder))
    assert "apt-get install" in said and "mmdebstrap" in said and "xorriso" in said and "openssh-client" not in said


def test_a_full_disk_is_noticed_before(tmp_path: Path) -> None:
    small = tmp_path / "new"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64M", "tmpfs", small], check=True)
    try:
        said = refusal(tmp_path)
    finally:
        subprocess.run(["umount", small], check=True)
    assert "0.1 GiB of free space" in said and "4 GiB" in said


def test_somebody_without_a_key_is_told_how_to_make_one(tmp_path: Path) -> None:
    (tmp_path / "keys.pub").write_text("# none yet\n")
    assert "ssh-keygen -t ed25519" in refusal(tmp_path, "-e", f"imaging_live_authorized_keys={tmp_path}/keys.pub")
