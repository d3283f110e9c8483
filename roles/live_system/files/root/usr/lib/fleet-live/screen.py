# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows on the console what this laptop is (name, addresses, host key, disks) and what is done with it.

Modules that work on a disk write what they do into a file, see module_utils/laptop/shown.py. The first console is redrawn in large letters;
a serial one gets a line for each change.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import json
import os
import re
import struct
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path("/run/fleet-live")
SHOWN = FOLDER / "shown"
PAUSE = 1.0
LOOK_PAUSE = 4.0
SLOW_PAUSE = 15.0
"""Seconds between two looks at the shown file, and at what changes seldom, before the laptop is ready and then."""

HOST_KEY = "/etc/ssh/ssh_host_ed25519_key.pub"
RAM_COPY = "/run/live/ram/filesystem.squashfs"

KDFONTOP, FONT_SET, FONT_GET = 0x4B72, 0, 1
FONT_OP = struct.Struct("IIIIIP")
"""Of linux/kd.h: op, flags, width, height, charcount, data. Each glyph has 32 rows in the data, of as many bytes as its width needs."""

TIOCGWINSZ = 0x5413
GLYPH_ROWS, MAX_GLYPHS = 32, 512
LEAST_COLUMNS = 50
"""Large letters are used where that many still fit."""

UNPRINTABLE = re.compile(r"[^ -~]")


@dataclass
class Laptop:
    """What changes seldom."""

    name: str = ""
    addresses: list[str] = field(default_factory=list)
    fingerprint: str = ""
    disks: list[str] = field(default_factory=list)
    listens: bool = False
    in_memory: bool = False


def run(*command: str) -> str:
    """Return what a program prints; nothing when it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=20, check=False)
        return done.stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def look() -> Laptop:
    """Return what this laptop is now."""
    return Laptop(
        name=os.uname().nodename,
        addresses=addresses(run("ip", "-json", "address")),
        fingerprint=" ".join(run("ssh-keygen", "-lf", HOST_KEY).split()[1:2]),
        disks=disks(run("lsblk", "--json", "--bytes", "--nodeps", "-o", "NAME,SIZE,TYPE,TRAN,MODEL,SERIAL")),
        listens=":0016 " in read("/proc/net/tcp") + read("/proc/net/tcp6"),
        in_memory=os.path.exists(RAM_COPY),
    )


def read(path: str) -> str:
    """Return a file's text; nothing when there is none."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def addresses(listed: str) -> list[str]:
    """Return the global addresses, by ``ip -json address``."""
    found = []
    with contextlib.suppress(ValueError):
        for interface in json.loads(listed):
            for entry in interface.get("addr_info", ()):
                if entry.get("scope") == "global" and not entry.get("temporary"):
                    found.append(f"{entry['local']} ({interface['ifname']})")
    return sorted(found, key=lambda text: ":" in text)


def disks(listed: str) -> list[str]:
    """Return a line for each disk, by ``lsblk --json``."""
    lines = []
    with contextlib.suppress(ValueError):
        for disk in json.loads(listed)["blockdevices"]:
            if disk["type"] == "disk" and int(disk["size"]):
                words = (disk["name"], f"{int(disk['size']) / 1e9:.1f} GB", disk["tran"], disk["model"], disk["serial"])
                lines.append("  ".join(" ".join(str(word).split()) for word in words if word))
    return lines


def doing(text: str) -> str:
    """Return in words what is done, by the content of the shown file."""
    try:
        shown: dict[str, Any] = json.loads(text)
        done, total = int(shown.get("done", 0)), int(shown.get("total", 0))
        words = f"{shown['doing']} {shown.get('device', '')}".strip()
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
    return f"{words}: {100 * done // total} %" if total > 0 else words


def page(laptop: Laptop, shown: str, columns: int) -> list[str]:
    """Return the lines of the screen."""
    state = doing(shown)
    if not state:
        waiting = "ready" if laptop.addresses else "waiting for the network"
        state = waiting if laptop.listens else "starting"
    lines = [laptop.name, "", f">>> {state}", ""]
    if laptop.in_memory:
        lines += ["This system runs in memory: the stick may be pulled.", ""]
    lines += [*(laptop.addresses or ["no address: is the network cable plugged in?"]), ""]
    lines += [*(laptop.disks or ["no disk found"]), "", "SSH host key", laptop.fingerprint]
    return [UNPRINTABLE.sub("?", part) for line in lines for part in wrapped(line, columns)]


def wrapped(line: str, columns: int) -> list[str]:
    """Return a line as lines that are short enough."""
    return [line[start : start + columns] for start in range(0, len(line), columns)] or [""]


def enlarge(console: int) -> None:
    """Double the letters of a console, where enough of them still fit. Does nothing where its driver can't."""
    try:
        if size_of(console)[1] < 2 * LEAST_COLUMNS:
            return
        glyphs = array.array("B", bytes(MAX_GLYPHS * GLYPH_ROWS))
        got = bytearray(FONT_OP.pack(FONT_GET, 0, 32, GLYPH_ROWS, MAX_GLYPHS, glyphs.buffer_info()[0]))
        fcntl.ioctl(console, KDFONTOP, got)
        _op, _flags, width, height, count, _data = FONT_OP.unpack(got)
        if width != 8 or height > GLYPH_ROWS // 2:
            return
        large = array.array("B", doubled(glyphs.tobytes(), height, count))
        fcntl.ioctl(console, KDFONTOP, FONT_OP.pack(FONT_SET, 0, 16, 2 * height, count, large.buffer_info()[0]))
    except OSError:
        pass  # as it is, it can be read as well


def doubled(glyphs: bytes, height: int, count: int) -> bytes:
    """Return glyphs of 8 columns with each of their points twice as wide and high."""
    large = bytearray()
    for glyph in range(count):
        rows = glyphs[glyph * GLYPH_ROWS : glyph * GLYPH_ROWS + height]
        block = bytearray()
        for row in rows:
            wide = sum(0b11 << 2 * bit for bit in range(8) if row >> bit & 1)
            block += 2 * wide.to_bytes(2, "big")
        large += block.ljust(2 * GLYPH_ROWS, b"\0")
    return bytes(large)


def size_of(console: int) -> tuple[int, int]:
    """Return how many lines fit, and how many letters into each."""
    rows, columns, _width, _height = struct.unpack("HHHH", fcntl.ioctl(console, TIOCGWINSZ, bytes(8)))
    return rows or 25, columns or 80


def serial_consoles() -> list[str]:
    """The kernel's serial consoles, which are there only with the hardware."""
    return [f"/dev/{name}" for name in read("/sys/class/tty/console/active").split() if name.startswith("ttyS")]


def write(console: int, text: str) -> None:
    """Write to a console, which may be gone or held up."""
    with contextlib.suppress(OSError):
        os.write(console, text.encode())


def main() -> None:
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    screen = os.open("/dev/tty1", os.O_RDWR | os.O_NOCTTY)
    serials = [os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK) for path in serial_consoles()]
    enlarge(screen)
    write(screen, "\033[?25l\033[9;0]")
    last: list[str] = []
    laptop, looked, drawn = Laptop(), float("-inf"), float("-inf")
    while True:
        if time.monotonic() - looked > (SLOW_PAUSE if laptop.listens and laptop.addresses else LOOK_PAUSE):
            laptop, looked = look(), time.monotonic()
        rows, columns = size_of(screen)
        lines = page(laptop, read(str(SHOWN)), columns)[:rows]
        if lines != last or looked > drawn:
            drawn = time.monotonic()
            write(screen, "\033[H\033[2J" + "\r\n".join(lines))
            for serial in serials:
                write(serial, "".join(f"{line}\r\n" for line in lines if line and line not in last))
            last = lines
        time.sleep(PAUSE)


if __name__ == "__main__":
    main()
