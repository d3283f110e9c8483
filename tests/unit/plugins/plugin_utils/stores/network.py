# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The network before a server."""

from __future__ import annotations

from urllib.parse import urlsplit

from ansible_collections.fleet.imaging.tests.lab.servers import Server

from ..halves import Proxy, Spoil, untouched


class Network:
    """The network before the server: it can be cut after some bytes, and counts those that went to the server."""

    def __init__(self, server: Server) -> None:
        self.sent = 0
        self.rest: int | None = None
        """Bytes until it is cut, None for never."""
        parts = urlsplit(server.url)
        address = parts.hostname or ""
        self.proxy = Proxy(parts.port or 0, lambda: self._pass, untouched, address)
        self.url = f"https://{address}:{self.proxy.port}"

    @property
    def _pass(self) -> Spoil:
        def spoil(_position: int, data: bytes) -> bytes:
            self.sent += len(data)
            if self.rest is None:
                return data
            self.rest -= len(data)
            return data if self.rest > 0 else b""

        return spoil
