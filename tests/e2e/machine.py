# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole virtual laptop: QEMU with a firmware, disks, a USB stick and a network card, whose port 22 is reached on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OVMF = Path("/usr/share/OVMF")
CODE, SECURE_CODE, VARIABLES, SECURE_VARIABLES = (
    "OVMF_CODE_4M.fd",
    "OVMF_CODE_4M.ms.fd",
    "OVMF_VARS_4M.fd",
    "OVMF_VARS_4M.ms.fd",
)
"""Of Debian's package ovmf. Those with ms have Microsoft's keys enrolled and Secure Boot switched on."""

BIOS, UEFI, SECURE_BOOT = "bios", "uefi", "secure boot"

BOOT_SECONDS = float(os.environ.get("FLEET_IMAGING_BOOT_SECONDS", "900"))
"""How long a laptop may take from being switched on until it answers by SSH: up to 376 s were seen on a busy machine without KVM."""

CONSOLE_END = 3000
"""Characters of the console that a failure shows."""


@dataclass(frozen=True)
class Model:
    """What a laptop is made of. ``disks`` are files; ``arguments`` are more of QEMU's."""

    firmware: str = BIOS
    memory_mib: int = 1024
    stick: Path | None = None
    dvd: Path | None = None
    disks: Sequence[Path] = ()
    arguments: Sequence[str] = field(default_factory=tuple)


def accelerator() -> list[str]:
    """Return QEMU's arguments for KVM where the processor offers it, else for its own emulation.

    /dev/kvm alone says little: where the processor does not show vmx or svm, guests hang or are refused.
    """
    flags = set(Path("/proc/cpuinfo").read_text().split())
    if flags & {"vmx", "svm"} and os.access("/dev/kvm", os.R_OK | os.W_OK):
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", "tcg"]


def free_port() -> int:
    """Return a port of the loopback interface that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class VirtualLaptop:
    """A running laptop. Its folder has the console (serial), the firmware's variables and pictures of the screen."""

    def __init__(self, model: Model, folder: Path) -> None:
        self.model = model
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.started = time.monotonic()
        with open(folder / "qemu.log", "wb") as log:
            self.process = subprocess.Popen(self._command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def _command(self) -> list[str]:
        model = self.model
        command = ["qemu-system-x86_64", *accelerator(), "-m", str(model.memory_mib), "-smp", "1", "-display", "none"]
        secure = ",smm=on" if model.firmware == SECURE_BOOT else ""
        command += ["-machine", f"q35{secure}", "-vga", "std", "-serial", f"file:{self.folder}/console"]
        command += ["-qmp", f"unix:{self.folder}/qmp,server=on,wait=off", "-monitor", "none"]
        command += [
            "-netdev",
            f"user,id=net,restrict=off,hostfwd=tcp:127.0.0.1:{self.port}-:22",
            "-device",
            "e1000e,netdev=net",
        ]
        if model.firmware != BIOS:
            code, variables = (SECURE_CODE, SECURE_VARIABLES) if model.firmware == SECURE_BOOT else (CODE, VARIABLES)
            shutil.copyfile(OVMF / variables, self.folder / "variables.fd")
            command += (
                ["-global", "driver=cfi.pflash01,property=secure,value=on", "-global", "ICH9-LPC.disable_s3=1"]
                if secure
                else []
            )
            command += ["-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={OVMF / code}"]
            command += ["-drive", f"if=pflash,format=raw,unit=1,file={self.folder}/variables.fd"]
        if model.stick:
            command += ["-device", "qemu-xhci", "-drive", f"if=none,id=stick,format=raw,readonly=on,file={model.stick}"]
            command += ["-device", "usb-storage,drive=stick,removable=on,bootindex=1"]
        if model.dvd:
            command += ["-drive", f"if=none,id=dvd,media=cdrom,format=raw,readonly=on,file={model.dvd}"]
            command += ["-device", "ide-cd,id=drive,drive=dvd,bus=ide.5,bootindex=1"]
        for number, disk in enumerate(model.disks):
            command += ["-drive", f"if=none,id=disk{number},format=raw,file={disk}"]
            command += [
                "-device",
                f"ide-hd,drive=disk{number},bus=ide.{number},serial=FLEET{number},bootindex={number + 2}",
            ]
        return [*command, *model.arguments]

    def console(self) -> str:
        """Return what the serial console has shown, without colours and cursor movements."""
        try:
            text = (self.folder / "console").read_text(errors="replace")
        except OSError:
            return ""
        return re.sub(r"\x1b\[[0-9;?=]*[A-Za-z]|\r", "", text)

    def wait_for(self, what: str, happened: Callable[[], bool], seconds: float = BOOT_SECONDS) -> float:
        """Wait until something has happened; return the seconds since the start. Fails with what was waited for, and the console's end."""
        deadline = time.monotonic() + seconds
        while not happened():
            status = self.process.poll()
            late = time.monotonic() > deadline
            if status is not None or late:
                why = f"{what}: not within {seconds:.0f} s" if late else f"{what}: QEMU ended with {status}"
                said = (self.folder / "qemu.log").read_text(errors="replace")
                raise AssertionError(f"{why}\n{said}\nThe console's end:\n{self.console()[-CONSOLE_END:]}")
            time.sleep(1)
        return time.monotonic() - self.started

    def ask(self, command: str, **arguments: Any) -> Any:
        """Give QEMU a command of its machine protocol, and return the answer."""
        with socket.socket(socket.AF_UNIX) as channel:
            channel.connect(str(self.folder / "qmp"))
            lines = channel.makefile("rw")
            json.loads(lines.readline())
            for request in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
                lines.write(json.dumps(request) + "\n")
                lines.flush()
                answer = json.loads(lines.readline())
                while "event" in answer:
                    answer = json.loads(lines.readline())
        assert "error" not in answer, answer
        return answer["return"]

    def picture(self, name: str) -> Path:
        """Take a picture of the screen, as PNG."""
        path = self.folder / f"{name}.png"
        self.ask("screendump", filename=str(path), format="png")
        return path

    def ssh(self, key: Path, known_hosts: Path, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command as root over SSH, which must know the laptop by the file of known hosts."""
        return subprocess.run(
            ["ssh", *ssh_options(key, known_hosts), "-p", str(self.port), "root@127.0.0.1", *command],
            capture_output=True,
            text=True,
            check=False,
        )

    def wait_for_ssh(self, key: Path, known_hosts: Path) -> float:
        """Wait until somebody can log in; return the seconds since the start."""
        return self.wait_for("log in by SSH", lambda: self.ssh(key, known_hosts, "true").returncode == 0)

    def switch_off(self) -> None:
        """Take the power away."""
        self.process.kill()
        self.process.wait()


def ssh_options(key: Path, known_hosts: Path) -> list[str]:
    """Return OpenSSH's options for a laptop that was started from the live system."""
    strict = [
        "-o",
        "StrictHostKeyChecking=yes",
        "-o",
        f"UserKnownHostsFile={known_hosts}",
        "-o",
        "GlobalKnownHostsFile=/dev/null",
    ]
    own = ["-F", "/dev/null", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-i", str(key)]
    return [*strict, *own, "-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=8"]


@contextlib.contextmanager
def running(model: Model, folder: Path) -> Iterator[VirtualLaptop]:
    """Switch a laptop on, and off in the end."""
    laptop = VirtualLaptop(model, folder)
    try:
        yield laptop
    finally:
        laptop.switch_off()
