# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of survival share: a transfer that is under way, and what must be true after any fault."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.fleet.imaging.plugins.module_utils.arguments import SSH, SSH_CLIENTS, TRANSPORTS
from ansible_collections.fleet.imaging.plugins.module_utils.image.reader import FileSource, ImageReader
from ansible_collections.fleet.imaging.plugins.module_utils.image.record import unpack_ranges
from ansible_collections.fleet.imaging.plugins.plugin_utils.transfer_action import OVERRIDES
from ansible_collections.fleet.imaging.tests.integration.playbooks import (
    LOCAL_TEMP,
    RESTORE_ONE,
    YES,
    Outcome,
    RunningPlaybook,
    playbook,
    start_playbook,
)
from ansible_collections.fleet.imaging.tests.lab.disks import make_used_disk
from ansible_collections.fleet.imaging.tests.lab.lab import Lab
from ansible_collections.fleet.imaging.tests.lab.laptop import Laptop, current_user
from ansible_collections.fleet.imaging.tests.lab.tools import run as tool

TIMEOUT = 6
"""imaging_link_timeout, in seconds."""

SHORT = {
    OVERRIDES: json.dumps(
        {
            "min_silence": 3,
            "max_silence": 3,
            "first_link": TIMEOUT,
            "connect": 3,
            "handshake": 3,
            "max_pause": 1,
            "log_in": TIMEOUT,
            "returning_grace": 3,
        }
    )
}
"""An environment in which both ends of a transfer wait for less long, so that a link that is gone is given up after TIMEOUT."""

SETTLED = 30.0
"""Seconds after which nothing of a run may be left on either side, whatever has happened to it."""

MAX_WAIT = 120.0
TICKET = b'"credentials":'


def where(image: Path, timeout: int = TIMEOUT) -> tuple[str, ...]:
    """The arguments that say which image is meant, and how long a link and a laptop's SSH server are tried again."""
    name = image.name.partition(".")[0]
    return (
        "-e",
        f"imaging_store={image.parent}",
        "-e",
        f"imaging_image={name}",
        "-e",
        f"imaging_link_timeout={timeout}",
        "-e",
        "ansible_timeout=5",
    )


LINK_TRANSPORTS: dict[str, tuple[str, ...]] = {
    **{transport: ("-e", f"imaging_transport={transport}") for transport in TRANSPORTS if transport != SSH},
    **{client: ("-e", f"imaging_transport={SSH}", "-e", f"imaging_ssh_client={client}") for client in SSH_CLIENTS},
}
"""The arguments for each transport and client."""

over_all_transports = pytest.mark.parametrize("way", list(LINK_TRANSPORTS))
over_two_transports = pytest.mark.parametrize("way", ["tcp", "openssh"])


def wait_until(true: Callable[[], object], what: str, seconds: float = MAX_WAIT) -> None:
    """Return when something is true."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.02)


def wait_until_detached(disk: Path) -> None:
    """Return when no loop device has a file. After it was detached, another test's program may look at its device for a moment."""
    wait_until(lambda: not tool("losetup", "--associated", disk), f"{disk} has no loop device", 10)


def written(device: str) -> int:
    """How many bytes were written to a device so far (the kernel's block/stat.rst)."""
    return 512 * int(Path("/sys/block", Path(device).name, "stat").read_text().split()[6])


def make_foreign(laptop: Laptop) -> None:
    """Have a laptop's disk hold old data, and nothing of an image."""
    fresh = laptop.folder / "fresh"
    fresh.unlink(missing_ok=True)
    make_used_disk(fresh, laptop.size)
    with open(fresh, "rb") as source, open(laptop.disk, "r+b") as disk:
        while data := source.read(4 << 20):
            disk.write(data)
        disk.flush()
        os.fsync(disk.fileno())
    fresh.unlink()


def put_image(image: Path, laptop: Laptop) -> None:
    """Have a laptop's disk hold an image, without a restore."""
    with open(laptop.disk, "r+b") as disk:
        subprocess.run(["zstd", "-q", "-dc", image], stdout=disk, check=True)
        os.fsync(disk.fileno())


def wait_for_share(device: str, image: Path, share: float, before: int, running: RunningPlaybook) -> None:
    """Return when so much of an image is on a device, to which so many bytes had been written before."""
    goal = before + int(share * ImageReader(FileSource(str(image))).index.used_bytes())
    wait_until(lambda: written(device) >= goal or running.process.poll() is not None, f"{share:.0%} of a restore")
    assert running.process.poll() is None, running.stdout()


def start_restore(
    lab: Lab,
    image: Path,
    share: float,
    *more: str,
    name: str | Path = RESTORE_ONE,
    environment: Mapping[str, str] | None = None,
) -> RunningPlaybook:
    """Have a playbook restore lab-01 (lab-02 too, unless limited) up to a share of the image; SHORT unless another environment is given."""
    laptop = lab.targets[0]
    make_foreign(laptop)
    before = written(laptop.disk)
    arguments = ("-l", "lab_laptops", *where(image), *YES, *more)
    running = start_playbook(lab, name, *arguments, environment=SHORT if environment is None else environment)
    wait_for_share(laptop.disk, image, share, before, running)
    return running


def published(laptop: Laptop) -> str:
    """What the module on a laptop says of itself, as root or, on a laptop that is not isolated, as an ordinary user."""
    script = 'cat /run/fleet.imaging/*.run "${TMPDIR:-/tmp}"/fleet.imaging-*/*.run 2>/dev/null || true'
    return laptop.run(["sh", "-c", script]).stdout


def kill_on_laptop(laptop: Laptop, pattern: str) -> None:
    """kill -9 the processes of a laptop whose command line holds a pattern."""
    laptop.run(["pkill", "-9", "-f", pattern])


@contextmanager
def held(laptop: Laptop, pattern: str) -> Iterator[None]:
    """Have the processes of a laptop whose command line holds a pattern do nothing."""
    laptop.run(["pkill", "-STOP", "-f", pattern])
    try:
        yield
    finally:
        laptop.run(["pkill", "-CONT", "-f", pattern])


def workers(running: RunningPlaybook) -> list[int]:
    """The workers of a playbook, by their process ids."""
    main = running.process.pid
    children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
    return [int(child) for child in children if b"ansible-playbook" in Path(f"/proc/{child}/cmdline").read_bytes()]


def kill(*processes: int) -> None:
    """kill -9."""
    for process in processes:
        os.kill(process, signal.SIGKILL)


def remains(lab: Lab) -> list[str]:
    """What is left of any run: processes, sockets and files of Ansible and of ours, on the laptops and here; a mount."""
    found = []
    for laptop in lab.laptops:
        if laptop.pid is None:
            continue
        script = (
            'ls -A "$1/ansible" "$1/async" "$1/tmp" | grep -v ":$"; ls -d /run/fleet.imaging/*.run 2>/dev/null; '
            r'ps -eo args | grep -E "[A]nsiballZ|[a]sync_wrapper|[p]artclone\."; ss -Htln "sport = :19000"; '
            'grep -E "/(sd|loop|nvme)[a-z0-9]+ " /proc/self/mounts | grep "$1"'
        )
        listing = laptop.run(["sh", "-c", script, "sh", str(laptop.folder)], check=False).stdout
        found += [f"{laptop.name}: {line}" for line in listing.splitlines() if line]
        found += [f"{laptop.name}: key in {path}" for path in tickets(laptop.folder)]
    found += [f"here: key in {path}" for path in tickets(LOCAL_TEMP)]
    # The connections that Ansible's ssh shares end by themselves, a minute after they were used last.
    listing = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    found += [
        f"here: {line}"
        for line in listing.splitlines()
        if (str(lab.inventory) in line and "ansible-playbook" in line) or (str(lab.folder) in line and " -W " in line)
    ]
    return found


def tickets(folder: Path) -> Iterator[Path]:
    """The files below a folder that hold a ticket, with its key."""
    # Unlike rglob, walk goes on when a folder goes meanwhile.
    for path in (Path(place, name) for place, _folders, names in os.walk(folder) for name in names):
        try:
            if path.is_file() and path.stat().st_size < 1 << 20 and TICKET in path.read_bytes():
                yield path
        except OSError:
            continue  # it has gone meanwhile


def boot_live_medium_again(laptop: Laptop) -> None:
    """Start a laptop that was off; what it had in memory is gone."""
    for folder in ("ansible", "async", "tmp"):
        shutil.rmtree(laptop.folder / folder)
    laptop.power_on()
    laptop.wait_until_up()


def assert_nothing_remains(
    lab: Lab, seconds: float = SETTLED, but: Callable[[Laptop], set[str]] = lambda _laptop: set()
) -> None:
    """Wait until nothing of any run is left; ``but`` says what may be left on a laptop."""
    deadline = time.monotonic() + seconds
    while left := set(remains(lab)).difference(*map(but, lab.laptops)):
        assert time.monotonic() < deadline, left
        time.sleep(0.3)


def result_of(outcome: Outcome, host: str, action: str = "image_restore") -> dict[str, Any]:
    """The result of a transfer that succeeded."""
    found = [result for result in outcome.of(action, host) if result.status == "ok"]
    assert found, outcome.stdout + outcome.stderr
    return found[0].result


def assert_finished_by_running_again(
    lab: Lab, image: Path, laptop: Laptop, min_equal: float = 0.0, *more: str
) -> dict[str, Any]:
    """Restore again: at least a share of the chunks is neither sent nor written, and then the disk holds the image."""
    outcome = playbook(lab, RESTORE_ONE, "-l", laptop.name, *where(image), *more, environment=SHORT)
    assert outcome.status == 0, outcome.stdout + outcome.stderr
    return assert_finished(outcome, image, laptop, min_equal)


def assert_finished(outcome: Outcome, image: Path, laptop: Laptop, min_equal: float) -> dict[str, Any]:
    """That a restore which was run again has neither sent nor written at least a share of the chunks, and the disk holds the image."""
    result = result_of(outcome, laptop.name)
    assert result["verified"] is True
    assert result["equal_chunks"] >= min_equal * result["used_chunks"], result
    if result["equal_chunks"]:
        index = ImageReader(FileSource(str(image))).index
        assert result["sent_bytes"] < sum(row.frame_size for row in index) * (1.05 - min_equal) + 500_000
    assert_holds(image, Path(laptop.disk))
    return result


def assert_holds(image: Path, disk: Path) -> None:
    """Compare every used byte of an image with a disk, by plain zstd."""
    reader = ImageReader(FileSource(str(image)))
    plain = subprocess.run(["zstd", "-q", "-dc", image], capture_output=True, check=True).stdout
    with open(disk, "rb") as file:
        for row in reader.index:
            offset, length = reader.header.geometry.offset(row.chunk), reader.header.geometry.length(row.chunk)
            file.seek(offset)
            content = file.read(length)
            for start, end in unpack_ranges(row.ranges, length):
                assert content[start:end] == plain[offset + start : offset + end], f"chunk {row.chunk}"


def looks_bootable(device: str) -> list[str]:
    """What on a disk a firmware or a kernel would take for something to start from."""
    with open(device, "rb") as disk:
        first = disk.read(1024)
        disk.seek(-512, os.SEEK_END)
        last = disk.read()
    signs = ["boot signature"] if first[510:512] == b"\x55\xaa" else []
    signs += [name for name, sector in (("GPT", first[512:]), ("backup GPT", last)) if sector[:8] == b"EFI PART"]
    probe = ["blkid", "-p", "-o", "value", "-s", "PTTYPE", device]
    probed = subprocess.run(probe, capture_output=True, text=True, check=False)
    listed = subprocess.run(["sfdisk", "-d", device], capture_output=True, text=True, check=False)
    return signs + probed.stdout.split() + (["partition table"] if listed.returncode == 0 else [])


@contextmanager
def firewall(laptop: Laptop, *rule: str) -> Iterator[None]:
    """Have a rule in a laptop's packet filter."""
    tool = "iptables-legacy" if Path("/usr/sbin/iptables-legacy").exists() else "iptables"
    laptop.run([tool, "-I", *rule])
    try:
        yield
    finally:
        laptop.run([tool, "-D", *rule])


def end_connections(lab: Lab, laptop: Laptop) -> None:
    """Kill the SSH sessions of a laptop, and this side's shared connections to it."""
    laptop.run(["pkill", "-9", "-f", rf"^sshd: {current_user()}( |@|$)"], check=False)
    listing = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    for line in listing.splitlines():
        found = re.match(rf"\s*(\d+) ssh: \S*{re.escape(str(lab.folder))}\S* \[mux\]", line)
        if found:
            os.kill(int(found[1]), signal.SIGKILL)
