# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the collection is measured against: what a person types into a shell on both machines to copy a disk.

Each peer is a pipeline on the laptop, that ends or begins with an nc that connects, and one on this machine, that begins
or ends with an nc that listens. Both flush what they wrote.
"""

from __future__ import annotations

import ipaddress
import json
import os
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from ..lab.laptop import Laptop
from ..lab.network import PREFIX_LENGTH

FIRST_PORT = 19100
LISTEN_SECONDS = 10.0
# The used maps' own programs, by the name that blkid has for a file system.
PARTCLONE = {"vfat": "partclone.vfat", "ntfs": "partclone.ntfs", "ext4": "partclone.extfs"}
ENDS_OF_DISK = 1 << 20
SWAP_HEADER = 64 << 10


class PeerFailed(Exception):
    """A peer did not do what it is measured for."""


@dataclass(frozen=True)
class Stream:
    """One connection from the laptop to this machine: what feeds or eats it there, and the file that it fills or empties here."""

    on_laptop: str
    file: Path


def capture_disk(laptop: Laptop, filters: str, folder: Path) -> list[Stream]:
    """Return how dd sends the whole disk; the filters stand between dd and nc."""
    command = f"dd if={laptop.disk} bs=4M status=none {filters}"
    return [Stream(command, folder / "disk")]


def capture_partitions(laptop: Laptop, filters: str, folder: Path) -> list[Stream]:
    """Return how partclone sends each file system that it knows, and dd the rest of what matters, in turn."""
    end = laptop.size - ENDS_OF_DISK
    commands = {
        "start": f"dd if={laptop.disk} bs=1M count=1 status=none",
        "end": f"dd if={laptop.disk} bs=1M iflag=skip_bytes skip={end} status=none",
    }
    for partition in _partitions(laptop):
        node, kind = partition["path"], partition["fstype"]
        if kind == "swap":
            commands[Path(node).name] = f"dd if={node} bs={SWAP_HEADER} count=1 status=none"
        else:
            commands[Path(node).name] = f"{PARTCLONE[kind]} -c -s {node} -o - -L /dev/null 2>/dev/null"
    return [Stream(f"{command} {filters}", folder / name) for name, command in commands.items()]


def restore_disk(laptop: Laptop, filters: str, folder: Path) -> list[Stream]:
    """Return how dd writes what arrives to the disk, and flushes it; the filters stand between nc and dd."""
    command = f"{filters} dd of={laptop.disk} bs=4M iflag=fullblock conv=fsync status=none"
    return [Stream(command, folder / "disk")]


def run_capture(laptop: Laptop, streams: list[Stream]) -> float:
    """Send all streams, one after the other, to their files; return the seconds from the first byte to the last flush."""
    for stream in streams:
        stream.file.parent.mkdir(exist_ok=True)
        stream.file.unlink(missing_ok=True)
    here = controller_address(laptop)
    listeners, senders = [], []
    for port, stream in enumerate(streams, FIRST_PORT):
        file = shlex.quote(str(stream.file))
        listeners.append(f"nc -d -l {here} {port} >{file} && sync {file}")
        senders.append(f"{stream.on_laptop} | nc -N {here} {port}")
    return _run_both(laptop, listeners, senders)


def run_restore(laptop: Laptop, streams: list[Stream]) -> float:
    """Send all files, one after the other, into their streams; return the seconds from the first byte to the last flush."""
    here = controller_address(laptop)
    listeners, receivers = [], []
    for port, stream in enumerate(streams, FIRST_PORT):
        listeners.append(f"nc -N -l {here} {port} <{shlex.quote(str(stream.file))}")
        receivers.append(f"nc -d {here} {port} | {stream.on_laptop}")
    return _run_both(laptop, listeners, receivers)


def _run_both(laptop: Laptop, listeners: list[str], on_laptop: list[str]) -> float:
    here = [
        subprocess.Popen(["bash", "-c", f"set -o pipefail; {command}"], start_new_session=True) for command in listeners
    ]
    try:
        wait_for_ports(range(FIRST_PORT, FIRST_PORT + len(listeners)))
        started = time.monotonic()
        done = laptop.run(["bash", "-c", "set -e -o pipefail\n" + "\n".join(on_laptop)], check=False)
        statuses = [process.wait() for process in here] if done.returncode == 0 else []
        seconds = time.monotonic() - started
    finally:
        for process in here:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if done.returncode or any(statuses):
        raise PeerFailed(f"{'; '.join(on_laptop)}: status {done.returncode}, here {statuses}: {done.stderr.strip()}")
    return seconds


def wait_for_ports(ports: range) -> None:
    """Return when all are listened on; see proc(5), /proc/net/tcp: in the second column the port in hexadecimal, then the state."""
    wanted = {f"{port:04X}" for port in ports}
    deadline = time.monotonic() + LISTEN_SECONDS
    while True:
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        if wanted <= {row[1].rpartition(":")[2] for row in rows if row[3] == "0A"}:
            return
        if time.monotonic() > deadline:
            raise PeerFailed(f"nc does not listen on the ports from {ports[0]} to {ports[-1]}; see what else does")
        time.sleep(0.01)


def _partitions(laptop: Laptop) -> list[dict[str, str]]:
    listed = laptop.run(["lsblk", "--json", "--list", "-o", "PATH,TYPE,FSTYPE", laptop.disk]).stdout
    partitions = [device for device in json.loads(listed)["blockdevices"] if device["type"] == "part"]
    for partition in partitions:
        if not partition["fstype"]:
            # lsblk asks udev, which is not everywhere; blkid looks for itself.
            probe = ["blkid", "-p", "-s", "TYPE", "-o", "value", partition["path"]]
            partition["fstype"] = laptop.run(probe).stdout.strip()
    if not partitions:
        raise PeerFailed(f"{laptop.disk} has no partitions")
    return partitions


def controller_address(laptop: Laptop) -> str:
    """Return the address of the lab's bridge: the first of its subnet."""
    return str(ipaddress.ip_interface(f"{laptop.address}/{PREFIX_LENGTH}").network[1])
