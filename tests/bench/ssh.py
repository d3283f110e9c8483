# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The transport ssh against what a person types: ``ssh laptop dd``; and its channel alone against ``ssh -W``.

Everybody uses the cipher AES-GCM, and the laptop's own sshd.
"""

from __future__ import annotations

import os
import shlex
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.fleet.imaging.plugins.module_utils.arguments import SSH_CLIENTS
from ansible_collections.fleet.imaging.plugins.module_utils.stream.link import Channel, SocketChannel, receive_exactly
from ansible_collections.fleet.imaging.plugins.module_utils.timeouts import DEFAULTS
from ansible_collections.fleet.imaging.plugins.plugin_utils.transports.ssh_openssh import OpenSsh
from ansible_collections.fleet.imaging.plugins.plugin_utils.transports.ssh_paramiko import Paramiko
from ansible_collections.fleet.imaging.plugins.plugin_utils.transports.ssh_settings import SshSettings

from ..integration.labs import running_lab
from ..lab.lab import Lab, Plan
from ..lab.laptop import Laptop
from .ours import Ours
from .peers import PeerFailed
from .speed import Say, cool_down, fill_with_old_data
from .state import Bar

CIPHER = "aes128-gcm@openssh.com"
HALF = 0.5
OWN_RATE = 1.11
"""0.9 of its rate."""
AMOUNT = 1 << 30
PIECE = 4 << 20
MIN_RATE = 250e6

SINK_AND_SPRING = """
import os, socket, sys
amount, piece = int(sys.argv[1]), os.urandom(4 << 20)
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
room = memoryview(bytearray(len(piece)))
while True:
    connection, _address = server.accept()
    with connection:
        wanted = connection.recv(1)
        if wanted == b"u":
            left = amount
            while left:
                left -= connection.recv_into(room)
            connection.sendall(b"k")
        elif wanted == b"d":
            for _piece in range(amount // len(piece)):
                connection.sendall(piece)
            connection.recv(1)
"""
"""Runs on the laptop: takes (u) or gives (d) so many bytes that nothing can compress."""


def measure_ssh(size: int, folder: Path, runs: int, say: Say) -> list[Bar]:
    """Measure everything, on disks of so many bytes."""
    say("bring the lab for SSH up")
    with running_lab(Plan(1, size, size, isolated=True)) as lab:
        store = folder / "ssh"
        store.mkdir(mode=0o700)
        return [*_channels(lab, runs, say), *_whole(lab, store, runs, say)]


# --- whole disks ---


def _whole(lab: Lab, store: Path, runs: int, say: Say) -> Iterator[Bar]:
    ours = Ours(lab, store)
    target, disk = lab.targets[0], store / "disk"
    seconds: dict[str, list[float]] = {}

    def note(what: str, taken: float) -> None:
        seconds.setdefault(what, []).append(taken)
        say(f"{what:<36} {taken:7.1f} s")

    for _turn in range(runs):
        for client in SSH_CLIENTS:
            ours.remove_image()
            cool_down()
            note(
                f"capture, {client}", ours.run("capture", "image_capture", "reference", *over(client)).playbook_seconds
            )
        cool_down()
        note("capture, ssh dd | dd", _by_hand(lab.reference, f"dd if={lab.reference.disk} bs=4M status=none", "", disk))
    for _turn in range(runs):
        for client in SSH_CLIENTS:
            _make_foreign(target)
            more = ("-e", "imaging_confirm_erase=true", *over(client))
            note(f"restore, {client}", ours.run("restore", "image_restore", target.name, *more).playbook_seconds)
        _make_foreign(target)
        there = f"dd of={target.disk} bs=4M iflag=fullblock conv=fsync status=none"
        note("restore, dd | ssh dd", _by_hand(target, "", there, disk))
    for direction, peer in (("capture", "ssh dd | dd"), ("restore", "dd | ssh dd")):
        for client in SSH_CLIENTS:
            taken, theirs = seconds[f"{direction}, {client}"], seconds[f"{direction}, {peer}"]
            ratio = statistics.median(taken) / statistics.median(theirs)
            details = {"seconds": taken, "peer_seconds": theirs}
            yield Bar(
                f"{direction} over SSH, {client}", f"time of the whole playbook, of {peer}", ratio, HALF, "x", details
            )


def over(client: str) -> tuple[str, ...]:
    """The arguments for a playbook."""
    return ("-e", "imaging_transport=ssh", "-e", f"imaging_ssh_client={client}")


def _make_foreign(target: Laptop) -> None:
    fill_with_old_data(Path(target.disk), target.size)
    cool_down()


def _ssh(laptop: Laptop) -> list[str]:
    lab = laptop.lab
    options = [f"UserKnownHostsFile={lab / 'known_hosts'}", f"IdentityFile={lab / 'client_key'}", "ControlPath=none"]
    options += ["IdentitiesOnly=yes", "Compression=no", f"Ciphers={CIPHER}"]
    return ["ssh", "-F", "/dev/null", *(word for option in options for word in ("-o", option))]


def _by_hand(laptop: Laptop, source: str, sink: str, disk: Path) -> float:
    """Run dd on the laptop (as source or as sink) and here, with SSH in between; returns seconds, both flushes included."""
    there = shlex.join([*_ssh(laptop), f"root@{laptop.address}", source or sink])
    file = shlex.quote(str(disk))
    here = f"dd of={file} bs=4M iflag=fullblock conv=fsync status=none" if source else f"dd if={file} bs=4M status=none"
    pipeline = f"{there} | {here}" if source else f"{here} | {there}"
    started = time.monotonic()
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {pipeline}"], stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise PeerFailed(f"{pipeline}: status {done.returncode}")
    return time.monotonic() - started


# --- the channel alone ---


@dataclass(frozen=True)
class _Way:
    name: str
    open: Callable[[int], Channel]


def _channels(lab: Lab, runs: int, say: Say) -> Iterator[Bar]:
    laptop = lab.targets[0]
    settings = SshSettings("ssh", laptop.address, (*_ssh(laptop)[1:], "-o", "LogLevel=VERBOSE", "-o", "User=root"))
    ways = [
        _Way("paramiko", lambda port: Paramiko(settings, DEFAULTS).open(port, 10)),
        _Way("openssh", lambda port: OpenSsh(settings, DEFAULTS).open(port, 10)),
        _Way("ssh -W", lambda port: _PlainSsh(laptop, port)),
    ]
    taken: dict[tuple[str, str], list[float]] = {}
    with _far_end(laptop) as port:
        for _turn in range(runs):
            for direction in ("to", "from"):
                for way in ways:
                    seconds = _carry(way.open(port), direction)
                    taken.setdefault((way.name, direction), []).append(seconds)
                    say(f"{way.name} {direction} the laptop {AMOUNT / seconds / 1e6:.0f} MB/s")
    for direction in ("to", "from"):
        mine = taken["paramiko", direction]
        what = f"seconds for 250 MB {direction} the laptop"
        value = statistics.median(mine) * MIN_RATE / AMOUNT
        yield Bar("the channel, paramiko", what, value, 1.0, "s", {"seconds": mine, "bytes": AMOUNT})
        mine, theirs = taken["openssh", direction], taken["ssh -W", direction]
        what = f"time {direction} the laptop, of ssh -W"
        details = {"seconds": mine, "peer_seconds": theirs, "bytes": AMOUNT}
        yield Bar(
            "the channel, openssh", what, statistics.median(mine) / statistics.median(theirs), OWN_RATE, "x", details
        )


@contextmanager
def _far_end(laptop: Laptop) -> Iterator[int]:
    command = [
        "nsenter",
        "--target",
        str(laptop.pid),
        "--net",
        "--",
        sys.executable,
        "-c",
        SINK_AND_SPRING,
        str(AMOUNT),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield int(process.stdout.readline() if process.stdout else "")
        finally:
            process.terminate()


class _PlainSsh(SocketChannel):
    """``ssh -W`` as anybody would start it."""

    def __init__(self, laptop: Laptop, port: int) -> None:
        mine, theirs = socket.socketpair()
        with theirs:
            command = [*_ssh(laptop), "-W", f"127.0.0.1:{port}", f"root@{laptop.address}"]
            self._process = subprocess.Popen(command, stdin=theirs.fileno(), stdout=theirs.fileno())
        super().__init__(mine)

    def close(self) -> None:
        """End it."""
        super().close()
        self._process.wait()


def _carry(channel: Channel, direction: str) -> float:
    """Seconds that AMOUNT bytes take through a channel, from the first to the last."""
    channel.settimeout(60)
    piece, room = memoryview(os.urandom(PIECE)), memoryview(bytearray(PIECE))
    channel.sendall(b"u" if direction == "to" else b"d")
    if direction == "from":
        channel.recv_into(room[:1])  # it is connected now
    started = time.monotonic()
    if direction == "to":
        for _piece in range(AMOUNT // PIECE):
            channel.sendall(piece)
        receive_exactly(channel, room[:1])
    else:
        receive_exactly(channel, room[: PIECE - 1])
        for _piece in range(AMOUNT // PIECE - 1):
            receive_exactly(channel, room)
        channel.sendall(b"k")
    seconds = time.monotonic() - started
    channel.close()
    return seconds
