# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows that stay at the bottom of a terminal while all other output scrolls above them.

A scroll region does this, so other writers to the terminal need not know. The control sequences are of ECMA-48, and of the
manual of the VT510 (DECSC, DECRC, DECSTBM, DECAWM), which every terminal emulator has. Each update is one write, so that no other
output comes in between.
"""

from collections.abc import Callable, Sequence

SAVE, RESTORE = "\x1b7", "\x1b8"
ALL_LINES = "\x1b[r"
CLEAR_BELOW = "\x1b[J"
CLEAR_REST = "\x1b[K"
WRAP_OFF, WRAP_ON = "\x1b[?7l", "\x1b[?7h"
LET_GO = SAVE + ALL_LINES + RESTORE + CLEAR_BELOW

MIN_ABOVE = 5
"""Minimum number of lines for all other output."""


class Screen:
    """The rows. ``write`` writes to the terminal at once, ``measure`` gives its columns and lines."""

    def __init__(self, write: Callable[[str], object], measure: Callable[[], tuple[int, int]]) -> None:
        self._write = write
        self._measure = measure
        self._held = 0
        self._size = (0, 0)

    def room(self) -> tuple[int, int]:
        """Return the number of columns, and how many rows may stay at the bottom."""
        columns, lines = self._measure()
        return columns, max(0, lines - MIN_ABOVE)

    def show(self, rows: Sequence[str]) -> None:
        """Show these rows at the bottom. None may be wider than the terminal."""
        size = self._measure()
        rows = rows[: self.room()[1]]
        out = ""
        if size != self._size or len(rows) != self._held:
            out += self._hold(len(rows), size)
        first = size[1] - len(rows) + 1
        out += SAVE + WRAP_OFF
        for number, row in enumerate(rows):
            out += f"\x1b[{first + number};1H{row}{CLEAR_REST}"
        self._write(out + WRAP_ON + RESTORE)

    def _hold(self, count: int, size: tuple[int, int]) -> str:
        """Reserve so many rows at the bottom. The cursor is in the first column, where other output goes on."""
        out = LET_GO if self._held else ""
        self._held, self._size = count, size
        if not count:
            return out
        return f"{out}{chr(10) * count}\x1b[{count}A{SAVE}\x1b[1;{size[1] - count}r{RESTORE}"

    def clear(self) -> None:
        """Leave the terminal as it was, without the rows."""
        if self._held:
            self._held = 0
            self._write(LET_GO)
