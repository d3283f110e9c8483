# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the map of a file system's used blocks from partclone.

Source: partclone's src/main.c, which writes the map of ``--domain``, and partclone.extfs(8). The map is in the format of GNU ddrescue.
"""

from __future__ import annotations

import os
import re
from typing import Iterable, Iterator

from ..errors import ImagingError
from ..private_files import scratch_folder
from .command import RunCommand

TOTAL = re.compile(r"0x([0-9A-F]{8,16}) +\?")
ROW = re.compile(r"0x([0-9A-F]{8,16})  0x([0-9A-F]{8,16})  ([+?])")
SECTOR = 512


class BadMap(ImagingError):
    """A map is incomplete or impossible."""


def used_blocks(run: RunCommand, program: str, node: str, size: int) -> Iterator[tuple[int, int]]:
    """Yield the used byte ranges of the file system on the block device ``node`` of ``size`` bytes, in order.

    ``program`` is the program of partclone for it. What the map does not cover is used. Raises MissingTool, and BadMap, also after the first ranges.
    """
    with scratch_folder() as folder:
        path = os.path.join(folder, "map")
        # Without a log file, partclone writes below /var/log or fails. Never use --force: it turns errors into warnings.
        log = os.path.join(folder, "log")
        # Its progress thread sleeps for its interval (two seconds) before the program can end.
        quick = ["--quiet", "--UI-fresh", "0"]
        result = run([program, *quick, "--domain", "--source", node, "--overwrite", path, "--logfile", log])
        if result.rc:
            raise BadMap(f"{program} could not map it: {_last_words(result.err, log)}")
        with open(path, encoding="ascii", errors="replace") as lines:
            yield from parse_map(lines, size)


def parse_map(lines: Iterable[str], size: int) -> Iterator[tuple[int, int]]:
    """Yield the used byte ranges of a map, and those that it does not cover, of ``size`` bytes; raises BadMap unless it is complete.

    partclone does not notice when it can't write its map, so only the rows prove that none is missing.
    """
    rows = (line.rstrip("\n") for line in lines if not line.startswith("#"))
    first = TOTAL.fullmatch(next(rows, ""))
    total = int(first.group(1), 16) if first else 0
    if not 0 < total <= size:
        raise BadMap(f"partclone's map is of {total} bytes, and the partition has {size}")
    position = 0
    for line in rows:
        row = ROW.fullmatch(line)
        start, length = (int(row.group(1), 16), int(row.group(2), 16)) if row else (0, 0)
        if row is None or start != position or not length or length % SECTOR:
            raise BadMap(f"partclone's map is damaged at byte {position}: {line[:80]!r}")
        position = start + length
        if position > total:
            raise BadMap(f"partclone's map goes to byte {position} of {total}")
        if row.group(3) == "+":
            yield start, position
    if position != total:
        raise BadMap(f"partclone's map ends at byte {position} of {total}")
    if total < size:
        yield total, size


def _last_words(errors: str, log: str) -> str:
    """Return the last messages of partclone, from its log or its standard error."""
    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            said = file.read(64 << 10)
    except OSError:
        said = ""
    lines = [line.strip() for line in (errors + "\n" + said).splitlines() if line.strip()]
    telling = [line for line in lines if re.search("error|fail|not |unclean|check", line, re.IGNORECASE)]
    return (telling or lines or ["it gave no reason"])[-1][:300]
