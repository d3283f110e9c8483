# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole virtual laptops start from the live system: from a USB stick, a DVD and the network, by every firmware."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.fleet.imaging.tests.e2e.machine import (
    BIOS,
    BOOT_SECONDS,
    SECURE_BOOT,
    UEFI,
    Model,
    VirtualLaptop,
    running,
    ssh_options,
)
from ansible_collections.fleet.imaging.tests.integration.playbooks import BIN, ROOT, ansible_environment
from ansible_collections.fleet.imaging.tests.lab.live_system import LiveSystem, cached_live_system

OUTPUT = ROOT / "tests/output/e2e"
DISK_SIZE = 256 << 20

pytestmark = pytest.mark.timeout(3 * BOOT_SECONDS)

OWN_DISK = "started from its own disk"
SAYS_WHERE = bytes.fromhex("fa 31c0 8ed8 be177c baf803 fc ac 84c0 7403 ee ebf8 f4 ebfd") + OWN_DISK.encode() + b"\r\n\0"
"""A boot sector that writes this to the first serial port and stops."""


def ansible(*command: str | Path) -> str:
    """Run a program of Ansible in the folder of the playbooks, and return what it prints; it must not fail."""
    done = subprocess.run(
        [BIN / command[0], *command[1:]],
        cwd=ROOT / "playbooks",
        env=ansible_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module", name="live")
def fixture_live() -> LiveSystem:
    """A built live system."""
    live = cached_live_system()
    ansible("ansible-playbook", "live.yml", *live.arguments())
    return live


@pytest.fixture(name="disk")
def fixture_disk(tmp_path: Path) -> Path:
    """A disk with a partition table and an ext4 whose journal waits to be replayed: whoever mounts it, writes to it."""
    path = tmp_path / "disk"
    path.touch()
    os.truncate(path, DISK_SIZE)
    table = "label: gpt\nstart=2048, size=400000, type=linux\n"
    subprocess.run(["sfdisk", "--quiet", path], input=table, text=True, check=True)
    offset = 2048 * 512
    subprocess.run(["mkfs.ext4", "-q", "-E", f"offset={offset}", path, "180M"], check=True)
    with open(path, "r+b") as file:
        file.write(SAYS_WHERE)
    script = "jo\njw -b 3000 /dev/zero\njc\n"
    subprocess.run(
        ["debugfs", "-w", "-f", "-", f"{path}?offset={offset}"],
        input=script,
        text=True,
        check=True,
        capture_output=True,
    )
    return path


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check(laptop: VirtualLaptop, live: LiveSystem, in_memory: bool) -> None:
    """Check a laptop that has just been started: who may log in, what it is, and that its screen says so."""

    def said(*command: str) -> str:
        done = laptop.ssh(live.key, live.known_hosts, *command)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    assert said("cat /proc/swaps").count("\n") == 1
    assert said("systemctl is-system-running || systemctl --failed --no-legend").strip() == "running"
    assert said("findmnt -n -o FSTYPE /").strip() == "overlay"
    assert ("/run/live/medium" in said("findmnt -rn -o TARGET")) != in_memory
    name = said("hostname").strip()
    assert name.startswith("live-")
    laptop.wait_for("the console says ready", lambda: ">>> ready" in laptop.console(), 60)
    fingerprint = subprocess.run(
        ["ssh-keygen", "-lf", live.ca / "ssh_host_ed25519_key.pub"], check=True, capture_output=True, text=True
    ).stdout.split()[1]
    assert name in laptop.console() and fingerprint in laptop.console()
    laptop.picture("ready")


@pytest.mark.parametrize("firmware", [BIOS, UEFI, SECURE_BOOT])
def test_from_a_stick(live: LiveSystem, disk: Path, firmware: str, tmp_path: Path) -> None:
    before = digest(disk)
    model = Model(firmware=firmware, stick=live.iso, disks=[disk])
    with running(model, OUTPUT / firmware.replace(" ", "-")) as laptop:
        seconds = laptop.wait_for_ssh(live.key, live.known_hosts)
        print(f"{firmware}: logged in after {seconds:.0f} s")
        check(laptop, live, in_memory=False)
        is_uefi = laptop.ssh(live.key, live.known_hosts, "test -d /sys/firmware/efi").returncode == 0
        assert is_uefi == (firmware != BIOS)
        if firmware == SECURE_BOOT:
            secure = "od -An -tu1 -j4 -N1 /sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
            assert laptop.ssh(live.key, live.known_hosts, secure).stdout.strip() == "1"
        refusals = {str(each["transport"]): each["target_refusals"] for each in disk_info(laptop, live, tmp_path)}
        assert refusals["sata"] == [] and "live_medium" in str(refusals["usb"])
    assert digest(disk) == before


def disk_info(laptop: VirtualLaptop, live: LiveSystem, folder: Path) -> list[dict[str, object]]:
    """What fleet.imaging.disk_info says of the laptop's disks, over Ansible."""
    inventory = folder / "hosts.yml"
    options = " ".join(ssh_options(live.key, live.known_hosts))
    variables = {
        "ansible_host": "127.0.0.1",
        "ansible_port": laptop.port,
        "ansible_user": "root",
        "ansible_ssh_common_args": options,
    }
    inventory.write_text(json.dumps({"all": {"hosts": {"lab-01": variables}}}))
    said = ansible("ansible", "-i", inventory, "lab-01", "-o", "-T", "60", "-m", "fleet.imaging.disk_info")
    found: list[dict[str, object]] = json.loads(said.partition("=> ")[2])["disks"]
    return found


def test_it_runs_in_memory_and_restarts_from_the_disk_without_a_key(live: LiveSystem, disk: Path) -> None:
    with running(Model(memory_mib=3072, dvd=live.iso, disks=[disk]), OUTPUT / "memory") as laptop:
        laptop.wait_for_ssh(live.key, live.known_hosts)
        check(laptop, live, in_memory=True)
        assert "may be pulled" in laptop.console()
        laptop.ask("blockdev-open-tray", id="drive", force=True)
        laptop.ask("blockdev-remove-medium", id="drive")
        laptop.ssh(live.key, live.known_hosts, "reboot")
        laptop.wait_for(OWN_DISK, lambda: OWN_DISK in laptop.console(), 300)


@pytest.fixture(name="url")
def fixture_url(live: LiveSystem) -> Iterator[str]:
    """The URL of the squashfs, as a laptop reaches it."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=live.build)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://10.0.2.2:{server.server_port}/filesystem.squashfs"
        server.shutdown()


def test_over_the_network(live: LiveSystem, url: str) -> None:
    record = live.record()
    words = f"{record['kernel_parameters']} fleet.fetch={url} fleet.sha256={record['files']['filesystem.squashfs']['sha256']}"
    kernel = ["-kernel", str(live.build / "vmlinuz"), "-initrd", str(live.build / "initrd"), "-append", words]
    with running(Model(arguments=kernel), OUTPUT / "network") as laptop:
        laptop.wait_for_ssh(live.key, live.known_hosts)
        check(laptop, live, in_memory=True)
