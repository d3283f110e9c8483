# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes sparse files."""

import os

HOLE = 64 << 10
"""Bytes. Runs of zeros of this size, aligned to it, are not written."""

ZEROS = bytes(HOLE)


def write_with_holes(descriptor: int, content: bytes | memoryview, position: int) -> None:
    """Write to a place of a file that holds nothing yet, except for zeros; raises OSError. The file's size is the caller's to set."""
    view = memoryview(content)
    while view:
        part = view[: HOLE - position % HOLE]
        if not ZEROS.startswith(part):
            done = 0
            while done < len(part):
                done += os.pwrite(descriptor, part[done:], position + done)
        position += len(part)
        view = view[len(part) :]
