# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real files of this machine, to fill file systems with."""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

# In these folders lie programs, libraries, texts and data.
FOLDERS = ["/usr/lib", "/usr/share", "/usr/bin"]
# Names that every file system and tool takes without quoting.
PLAIN_NAME = re.compile(r"[A-Za-z0-9._+/-]+")
CLUSTER = 4096


class MachineFiles:
    """The files of this machine, listed once."""

    def __init__(self) -> None:
        self._files = sorted(_plain_files())

    def choose(self, budget: int, places: Mapping[str, str]) -> dict[str, Path]:
        """Return files of together about so many bytes: a path below the place of its folder, and the file.

        The order mixes all kinds; it depends on the places, and is the same at every run. When the machine has too few, they are
        taken again, to another place.
        """
        files = random.Random(str(places)).sample(self._files, len(self._files))
        chosen: dict[str, Path] = {}
        largest = max(budget // 16, CLUSTER)
        for turn in itertools.count():
            before = len(chosen)
            for path, size in files:
                if budget < CLUSTER:
                    return chosen
                top = next((folder for folder in places if path.startswith(f"{folder}/")), None)
                if top is not None and size <= min(largest, budget):
                    again = f"/again-{turn}" if turn else ""
                    chosen[places[top] + again + path[len(top) :]] = Path(path)
                    budget -= -(-size // CLUSTER) * CLUSTER
            if len(chosen) == before:
                return chosen
        return chosen


def _plain_files() -> Iterator[tuple[str, int]]:
    """Yield path and size of the files that can be read; of names that differ in case alone, one."""
    seen = set()
    for folder in FOLDERS:
        for parent, folders, names in os.walk(folder):
            folders.sort()
            for name in sorted(names):
                path = f"{parent}/{name}"
                if PLAIN_NAME.fullmatch(path) and path.lower() not in seen and not os.path.islink(path):
                    seen.add(path.lower())
                    try:
                        if os.access(path, os.R_OK):
                            yield path, os.path.getsize(path)
                    except FileNotFoundError:
                        pass  # A package is being installed or removed.


def copies(files: Mapping[str, Path], folder: Path) -> dict[str, Path]:
    """Copy files into an empty folder, by numbers; return the copies in place of the files, without files that have gone meanwhile."""
    found = {}
    for number, (place, path) in enumerate(files.items()):
        try:
            shutil.copyfile(path, folder / str(number))
        except FileNotFoundError:
            continue
        found[place] = folder / str(number)
    return found
