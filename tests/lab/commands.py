# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's commands.

up      make a reference and some laptops on this machine, and the inventory file for them
status  show what is up
down    remove all of it

As root, each laptop has namespaces of its own, with its own sshd, and a loop device as its disk; otherwise it is an sshd on
a port of 127.0.0.1 and a regular file.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import time
from pathlib import Path

from .lab import UDEV_SECONDS, Lab, Plan, can_isolate, default_folder
from .processes import MARK
from .tools import LabError

UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


def main() -> int:
    """Carry out a command; return the exit status."""
    arguments = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *dummy: sys.exit(143))
    try:
        lab = Lab(arguments.state)
        status: int = arguments.command(lab, arguments)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted", file=sys.stderr)
        return 130
    return status


def up(lab: Lab, arguments: argparse.Namespace) -> int:
    """Bring the lab up."""
    isolated = not arguments.no_root and can_isolate()
    if not isolated and not arguments.no_root and os.geteuid() == 0:
        print("lab: no namespaces or loop devices to be had here: the laptops share this machine's", file=sys.stderr)
    # What this starts is found by "down" if this is killed.
    os.environ[MARK] = str(lab.folder)
    started = time.monotonic()
    lab.up(
        Plan(
            laptops=arguments.laptops,
            disk_size=arguments.disk_size,
            reference_size=arguments.reference_size or arguments.disk_size,
            isolated=isolated,
            inventory=arguments.inventory,
            link_mbit=arguments.link_mbit,
            used_share=arguments.used_share,
            aged=arguments.aged,
            blank=arguments.blank,
            direct_io=arguments.direct_io,
            reference_image=arguments.reference_image,
            python=arguments.python,
            udev_seconds=UDEV_SECONDS,
        )
    )
    _show(lab)
    print(f"up after {time.monotonic() - started:.1f} s; the inventory: {lab.inventory}")
    return 0


def status(lab: Lab, arguments: argparse.Namespace) -> int:
    """Show what is up; the status is 0 when all of it is."""
    del arguments
    if not lab.laptops:
        print(f"no lab in {lab.folder}")
        return 1
    _show(lab)
    return 0 if all(laptop.pid for laptop in lab.laptops) else 1


def down(lab: Lab, arguments: argparse.Namespace) -> int:
    """Take the lab down."""
    del arguments
    lab.down()
    print(f"nothing is left of the lab in {lab.folder}")
    return 0


def _show(lab: Lab) -> None:
    for laptop in lab.laptops:
        pid = laptop.pid
        state = f"sshd {pid}" if pid else "NOT RUNNING"
        address = f"{laptop.address}:{laptop.port}"
        print(f"{laptop.name:<10} {address:<22} {state:<12} {laptop.size / 2**30:8.2f} GiB  {laptop.disk}")


def _size(text: str) -> int:
    found = re.fullmatch(r"(\d+)([KMGT]?)(?:i?B)?", text, re.IGNORECASE)
    if not found:
        raise argparse.ArgumentTypeError(f"{text}: not a size; say for example 512M or 2G")
    return int(found[1]) << UNITS[found[2].upper()]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lab", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for function in (up, status, down):
        command = commands.add_parser(function.__name__, help=function.__doc__, allow_abbrev=False)
        command.set_defaults(command=function)
        command.add_argument(
            "--state", type=Path, metavar="DIR", help=f"the lab's folder, default {default_folder()}; two labs need two"
        )
        if function is up:
            _add_plan(command)
    return parser


def _add_plan(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--laptops", type=int, required=True, metavar="N", help="how many, beside the reference")
    add("--disk-size", type=_size, required=True, metavar="SIZE", help="of each disk: 512M, 2G")
    add("--reference-size", type=_size, metavar="SIZE", help="of the reference's disk, if it is another")
    add(
        "--reference-image",
        type=Path,
        metavar="FILE",
        help="copy the reference's disk from here; made when there is none",
    )
    add("--used-share", type=float, default=1 / 3, metavar="SHARE", help="of the reference's disk, default 0.33")
    add("--aged", action="store_true", help="remove a third of the reference's files again, not an eighth")
    add("--blank", action="store_true", help="laptops get a disk of zeros, not one with old data")
    add("--link-mbit", type=int, metavar="M", help="limit each laptop's link to M Mbit/s in both directions (root)")
    add("--direct-io", action="store_true", help="loop devices that bypass this machine's cache (root)")
    add("--no-root", action="store_true", help="what everybody can have, also for root")
    add(
        "--inventory",
        type=Path,
        metavar="FILE",
        help="where to write the inventory, default hosts.yml in the lab's folder",
    )
    add("--python", default="/usr/bin/python3", metavar="PATH", help="the laptops' Python, default %(default)s")


if __name__ == "__main__":
    sys.exit(main())
