# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a worker knows of the laptops from which its own one took chunks, for the result of the restore."""

from __future__ import annotations

from typing import Any, TypedDict

from ansible_collections.fleet.imaging.plugins.module_utils.quantities import number
from ansible_collections.fleet.imaging.plugins.module_utils.stream.relaying import Loss

LOST = "lost"
UNREACHABLE = "unreachable"
DAMAGE = "damage"
"""Codes of reasons to leave a laptop: its link broke or fell silent, no link could be made, it sent a record that is not the image's."""


class Taken(TypedDict):
    """A laptop, and the bytes of frames that were taken from there; None when they are not known."""

    host: str
    bytes: int | None


class Left(TypedDict):
    """A laptop from which nothing was taken any more, and the code of the reason."""

    host: str
    code: str


class Upstreams:
    """The laptops that the controller has named to one laptop, in that order, and what became of them."""

    def __init__(self) -> None:
        self._named: dict[str, None] = {}
        self._left: dict[tuple[str, str], None] = {}
        self.slow = False
        """Whether the laptop itself was too slow for others to take from it."""

    def name(self, host: str) -> None:
        """Note that the laptop is told to take chunks from another one."""
        self._named[host] = None

    def leave(self, loss: Loss) -> None:
        """Note why it takes nothing from there any more."""
        self._left[loss.host, DAMAGE if loss.damage else LOST if loss.reached else UNREACHABLE] = None

    @property
    def unreachable(self) -> bool:
        """Whether it could not connect to one of them."""
        return any(code == UNREACHABLE for _host, code in self._left)

    def facts(self, said: Any) -> dict[str, Any]:
        """Return the fields of the result. ``said`` is what the laptop says it took, None when it says nothing.

        It is believed only of laptops that were named to it.
        """
        sizes = {each["host"]: each.get("bytes") for each in said or () if each["host"] in self._named}
        hosts = self._named if said is None else sizes
        return {
            "taken_from": [Taken(host=host, bytes=_believed(sizes.get(host))) for host in hosts],
            "left": [Left(host=host, code=code) for host, code in self._left],
            "slow": self.slow,
        }


def _believed(size: int | None) -> int | None:
    return size if number(size) is not None else None
