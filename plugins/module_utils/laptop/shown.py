# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the screen of a laptop shows of a transfer, where it was started from this collection's live system.

The live system has the folder and shows the file in it: JSON with ``doing`` (words for a person) and, as far as they are known, ``device``,
``done`` and ``total`` (bytes). It is replaced as a whole, and the last transfer's stays. On other live systems nothing is written.
"""

from __future__ import annotations

import contextlib
import json
import os

from ..engine.status import STREAMING, Status
from ..printable import printable

FOLDER = "/run/fleet-live"
NAME = "shown"
MAX_LENGTH = 300
"""Characters of an error message."""


def show(doing: str, device: str = "", done: int = 0, total: int = 0) -> None:
    """Have the screen show what is done. Never fails: nobody may be looking."""
    path = os.path.join(FOLDER, NAME)
    with contextlib.suppress(OSError):
        with open(path + ".new", "w", encoding="utf-8") as file:
            json.dump({"doing": printable(doing)[:MAX_LENGTH], "device": device, "done": done, "total": total}, file)
        os.replace(path + ".new", path)


def show_status(work: str, device: str, status: Status) -> None:
    """Have the screen show a progress report of some work, such as ``restoring``."""
    show(work if status.phase == STREAMING else status.phase, device, status.done, status.total)
