# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One laptop of the lab: an sshd, for root in namespaces of its own, and a disk."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import udev_stand_in
from .network import Network
from .processes import MARK, end_processes, marked_processes, sshd_configuration
from .tools import SEARCH_PATH, LabError, find, run_bounded

START_SECONDS = 15.0

SSHD_CONFIGURATION = """\
# The first value of an option counts.
Include {folder}/sshd_extra
ListenAddress {address}
Port {port}
HostKey {keys}/host_key
PidFile none
AllowUsers {user}
AuthenticationMethods publickey
AuthorizedKeysFile {keys}/client_key.pub
PasswordAuthentication no
KbdInteractiveAuthentication no
# The folders above belong to whom they may.
StrictModes no
UsePAM {pam}
UseDNS no
PrintMotd no
PrintLastLog no
MaxSessions 100
MaxStartups 100
Subsystem sftp internal-sftp
# SHLVL: a bash that sshd starts for one command reads ~/.bashrc, which is the machine's and no laptop's, only at level 1.
SetEnv {mark}={folder} TMPDIR={folder}/tmp SHLVL=1
"""

# What a laptop has for itself: /run, a shadow file in which root is not locked (without PAM, sshd refuses who is) and a
# name. It keeps the machine's udev, and something that locks its disk as udev does. Everything is gone with its last process.
BOOT = """
set -e
folder=$1 name=$2 disk=$3 python=$4 udev=$5 udev_seconds=$6
shift 6
# What tests have mounted just now would stay mounted in here, and its device busy, for as long as the laptop runs.
while read -r _ place _; do
    case $place in /tmp/* | /var/tmp/*) umount --lazy "$(printf %b "$place")" || : ;; esac
done </proc/mounts
mkdir -p "$folder/run"
mount -t tmpfs -o mode=755 tmpfs "$folder/run"
mkdir "$folder/run/sshd" "$folder/run/lock"
if [ -d /run/udev ]; then
    mkdir "$folder/run/udev"
    mount --bind /run/udev "$folder/run/udev"
fi
mount --rbind "$folder/run" /run
mount --bind "$folder/shadow" /etc/shadow
if [ "$udev_seconds" != 0 ]; then
    "$python" "$udev" "$disk" "$udev_seconds" >>"$folder/udev.log" </dev/null &
fi
echo "$name" >/proc/sys/kernel/hostname
exec "$@"
"""


@dataclass(frozen=True)
class Laptop:
    """A laptop; its number from 0 says which namespace and link are its own. Sizes are in bytes.

    ``udev_seconds`` is for how long its disk is locked after somebody has written to it; 0 is not at all, as without root.
    """

    name: str
    number: int
    lab: Path
    isolated: bool
    address: str
    port: int
    disk: str
    backing_file: Path
    size: int
    udev_seconds: float = 0

    @property
    def folder(self) -> Path:
        """The folder that holds everything of it: configuration, log, disk, and what Ansible puts on it."""
        return self.lab / self.name

    @property
    def pid(self) -> int | None:
        """The process id of its sshd, None when it does not run."""
        for process in marked_processes(self.folder):
            try:
                if sshd_configuration(Path(f"/proc/{process}")) == str(self.folder / "sshd_config"):
                    return process
            except OSError:
                pass  # It has just ended.
        return None

    def power_on(self) -> None:
        """Start its sshd; it answers a moment later, see wait_until_up."""
        for name in ("tmp", "ansible", "async"):
            (self.folder / name).mkdir(mode=0o700, exist_ok=True)
        (self.folder / "shadow").write_text("root:*:19000:0:99999:7:::\n")
        (self.folder / "sshd_config").write_text(self._sshd_configuration())
        sshd = [str(find("sshd")), "-f", str(self.folder / "sshd_config"), "-D", "-E", str(self.folder / "sshd.log")]
        with open(self.folder / "boot.log", "a") as log:
            subprocess.run(
                ["setsid", "--fork", *self._own_namespaces(), *sshd],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=True,
            )

    def reconfigure_sshd(self, *lines: str) -> None:
        """Have its sshd obey other lines before its own; none: only its own."""
        pid = self.pid
        if pid is None:
            raise LabError(f"{self.name} is not running; power_on() starts it")
        (self.folder / "sshd_extra").write_text("".join(f"{line}\n" for line in lines))
        log = self.folder / "sshd.log"
        before = log.stat().st_size
        os.kill(pid, signal.SIGHUP)
        deadline = time.monotonic() + START_SECONDS
        while "Server listening" not in log.read_bytes()[before:].decode(errors="replace"):
            if time.monotonic() > deadline:
                raise LabError(f"{self.name}: sshd does not take {lines}: {log.read_text(errors='replace')[before:]}")
            time.sleep(0.02)

    def power_off(self) -> None:
        """End all its processes at once."""
        end_processes(self.folder)

    def wait_until_up(self) -> None:
        """Return when its sshd answers; raise LabError with its log when it does not."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                with socket.create_connection((self.address, self.port), timeout=1) as connection:
                    if connection.recv(4) == b"SSH-":
                        return
            except OSError:
                pass  # Not yet.
            time.sleep(0.05)
        logs = [path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log"))]
        raise LabError(f"{self.name}: no sshd at {self.address} port {self.port}: {' '.join(logs).strip()}")

    def run(
        self, command: Sequence[str | Path], stdin: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on it as the lab's user, without SSH, so also while the link is down; return how it went.

        Raises LabError when it fails, unless check is false, and when it does not end.
        """
        inside: list[str] = []
        if self.isolated:
            pid = self.pid
            if pid is None:
                raise LabError(f"{self.name} is not running; power_on() starts it")
            inside = ["nsenter", "--target", str(pid), "--mount", "--net", "--pid", "--uts", "--"]
        done = run_bounded([*inside, *command], self._environment(), stdin)
        if check and done.returncode:
            raise LabError(f"{self.name}: {command} ended with status {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def link_down(self) -> None:
        """Take its network cable out; only an isolated laptop has one."""
        Network(self.lab).set_link(self.number, "down")

    def link_up(self) -> None:
        """Put its network cable in again."""
        Network(self.lab).set_link(self.number, "up")

    def host_variables(self) -> dict[str, str | int]:
        """Return what the inventory says of it."""
        return {
            "ansible_host": self.address,
            "ansible_port": self.port,
            "ansible_remote_tmp": str(self.folder / "ansible"),
            "ansible_async_dir": str(self.folder / "async"),
            "imaging_disk": self.disk,
        }

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PATH": SEARCH_PATH, "TMPDIR": str(self.folder / "tmp"), MARK: str(self.folder)}

    def _own_namespaces(self) -> list[str]:
        if not self.isolated:
            return []
        netns = ["ip", "netns", "exec", Network(self.lab).namespace(self.number)]
        unshare = ["unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc"]
        udev = [sys.executable, udev_stand_in.__file__, f"{self.udev_seconds:g}"]
        return [*netns, *unshare, "sh", "-c", BOOT, "sh", str(self.folder), self.name, self.disk, *udev]

    def _sshd_configuration(self) -> str:
        return SSHD_CONFIGURATION.format(
            address=self.address,
            port=self.port,
            user=current_user(),
            keys=self.lab,
            mark=MARK,
            folder=self.folder,
            pam="yes" if not self.isolated and _is_locked() else "no",
        )


def current_user() -> str:
    """Return the name of the user that runs this, who is also the laptops' user."""
    return pwd.getpwuid(os.geteuid()).pw_name


def _is_locked() -> bool:
    """Return whether sshd without PAM would refuse the current user: who has a password that begins with "!" (shadow(5))."""
    try:
        lines = Path("/etc/shadow").read_text().splitlines()
    except OSError:
        return False  # Then sshd, as the same user, can't read it either.
    return any(line.startswith(f"{current_user()}:!") for line in lines)


def free_ports(count: int) -> list[int]:
    """Return so many ports of 127.0.0.1 that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports
