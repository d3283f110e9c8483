# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The exception that all parts raise when the user has to do something."""

from __future__ import annotations

from typing import Any, Iterable

from .printable import printable_lines


class ImagingError(Exception):
    """An error message for the user: what was expected, what was found, what to do next.

    Whatever a message quotes (a program, the other end, a disk's label), it is fit to be shown. ``facts`` become fields of the failed result, for
    whoever has to decide by them; ``codes`` of ``reasons``, by default that of the class, are always among them.
    """

    code = ""

    def __init__(self, message: str = "", codes: Iterable[str] = (), **facts: Any) -> None:
        super().__init__(printable_lines(message))
        self.facts: dict[str, Any] = {"codes": list(codes) or [self.code] * bool(self.code), **facts}
