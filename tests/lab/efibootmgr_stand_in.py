# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers as efibootmgr does, and has the list of entries in a file: the machines that run tests have no firmware that may be written.

efibootmgr_stand_in.py FILE OPTION...: FILE holds a Firmware as JSON.

Source: efibootmgr(8), and what its versions 17 and 18 print.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass
class Firmware:
    """Its list: by number each entry's label, the GUID of the partition and the path there (both empty for what lies on no disk), the order
    in which they are tried, and which of them are not active. ``version`` is that of the efibootmgr that shows it.
    """

    version: int = 18
    entries: dict[str, tuple[str, str, str]] = field(default_factory=lambda: {"0000": ("Network", "", "")})
    order: list[str] = field(default_factory=lambda: ["0000"])
    inactive: set[str] = field(default_factory=set)

    @classmethod
    def load(cls, path: Path) -> Firmware:
        """The one that a file holds."""
        saved = json.loads(path.read_text())
        return cls(**{**saved, "inactive": set(saved["inactive"])})

    def save(self, path: Path) -> None:
        """Have a file hold it."""
        path.write_text(json.dumps({**asdict(self), "inactive": sorted(self.inactive)}))

    def add(self, number: str, label: str, partition: str, path: str) -> None:
        """Add an entry, which is not tried yet."""
        self.entries[number] = (label, partition, path.replace("/", "\\"))

    def answer(self, options: Sequence[str]) -> tuple[int, str, str]:
        """Do what efibootmgr does: its exit status, and what it prints as output and as errors."""
        if list(options) == ["-v"]:
            return 0, self.listing(), ""
        value = {
            name: options[options.index(name) + 1] for name in ("-b", "-d", "-p", "-L", "-l", "-o") if name in options
        }
        if "-B" in options:
            del self.entries[value["-b"]]
            self.order = [each for each in self.order if each != value["-b"]]
        elif "-a" in options:
            self.inactive.remove(value["-b"])
        elif "-o" in options:
            order = value["-o"].split(",")
            if not set(order) <= set(self.entries):
                return 8, "", "Invalid BootOrder order entry value"
            self.order = order
        elif "-c" in options:
            number = next(f"{each:04X}" for each in range(16) if f"{each:04X}" not in self.entries)
            self.add(number, value["-L"], partition_guid(value["-d"], value["-p"]), value["-l"])
            self.order = [number, *self.order]
        return 0, "", ""

    def listing(self) -> str:
        """What efibootmgr -v prints."""
        rows = ["BootCurrent: 0000", "Timeout: 0 seconds", f"BootOrder: {','.join(self.order)}"]
        for number, (label, partition, path) in self.entries.items():
            place = "PciRoot(0x0)/Pci(0x1c,0x0)/MAC(001122334455,0)"
            if partition:
                file = f"File({path})WINDOWS........." if self.version < 18 else f"{path}57494e444f575300"
                place = f"HD(1,GPT,{partition},0x800,0x14000)/{file}"
            rows.append(f"Boot{number}{' ' if number in self.inactive else '*'} {label}\t{place}")
        return "\n".join([*rows, ""])


def partition_guid(disk: str, number: str) -> str:
    """What tells a partition of a GPT from others."""
    command = ["sfdisk", "--part-uuid", disk, number]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().lower()


def main() -> int:
    """Answer once."""
    path = Path(sys.argv[1])
    firmware = Firmware.load(path)
    status, output, errors = firmware.answer(sys.argv[2:])
    firmware.save(path)
    print(output, end="")
    print(errors, end="", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
