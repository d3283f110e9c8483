# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The listening end of links: accepts connections of the ends that are expected, and fends off strangers."""

from __future__ import annotations

import errno
import itertools
import socket
import threading
from collections import deque
from typing import Callable

from ..errors import ImagingError
from ..reasons import LINK_BROKEN, PORT_IN_USE
from ..timeouts import DEFAULTS, Timeouts
from .credentials import CONTROLLER, LAPTOP, THE_CONTROLLER, Credentials, Name
from .link import Link, LinkError, TcpChannel
from .tls import accept_tls

LOOPBACK = "127.0.0.1"
"""The address for connections from this machine only, including those through its sshd."""

HANDSHAKES = 64
"""Maximum number of unauthenticated connections. One more replaces the oldest: a client with a certificate needs only moments."""


class ControllerGone(ImagingError):
    """No controller connected in time."""

    code = LINK_BROKEN


class Listener:
    """Accepts connections, runs their handshakes in parallel, and hands out the authenticated links.

    There is one link for each client's name: a new link closes the older one of that name.
    """

    def __init__(
        self,
        address: str,
        port: int,
        credentials: Credentials,
        timeouts: Timeouts = DEFAULTS,
        expected: Callable[[Name], bool] = lambda name: name == THE_CONTROLLER,
    ) -> None:
        """Listen on ``port`` (0: the kernel chooses) of ``address`` (empty: all); raises ImagingError when it is taken.

        ``expected`` says whether an end of the run may connect, by its name.
        """
        self._context = credentials.context(server_side=True)
        self._expected = expected
        self._timeouts = timeouts
        both = not address and socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both or ":" in address else socket.AF_INET
        try:
            self._socket = socket.create_server((address, port), family=family, backlog=128, dualstack_ipv6=both)
        except OSError as error:
            codes = [PORT_IN_USE] if error.errno == errno.EADDRINUSE else []
            raise ImagingError(_listen_error(port, error), codes) from error
        self._waiting: dict[Name, Link] = {}
        """For each name, the newest link that was not handed out yet."""
        self._taken: dict[Name, Link] = {}
        self._newest: dict[Name, int] = {}
        """For each name, the number of the latest authenticated connection."""
        self._unproven: deque[TcpChannel] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, name="listener", daemon=True).start()

    def _accept(self) -> None:
        for number in itertools.count():
            if self._closed:
                return
            try:
                connection, _address = self._socket.accept()
                channel = TcpChannel(connection)
            except OSError as error:
                if self._closed or error.errno in (errno.EBADF, errno.EINVAL):
                    return
                continue  # the peer went away between connecting and being accepted
            self._admit(channel, number)

    def _admit(self, channel: TcpChannel, number: int) -> None:
        with self._changed:
            self._unproven.append(channel)
            oldest = self._unproven.popleft() if len(self._unproven) > HANDSHAKES else None
        if oldest is not None:
            oldest.close()
        try:
            threading.Thread(target=self._shake_hands, args=(channel, number), name="handshake", daemon=True).start()
        except RuntimeError:  # the system has no more threads at the moment
            self._dismiss(channel)

    def _dismiss(self, channel: TcpChannel) -> None:
        with self._changed:
            if channel in self._unproven:
                self._unproven.remove(channel)
        channel.close()

    def _shake_hands(self, channel: TcpChannel, number: int) -> None:
        try:
            name, tls = accept_tls(channel, self._context, self._expected, self._timeouts.handshake)
        except LinkError:
            self._dismiss(channel)
            return
        with self._changed:
            if channel not in self._unproven:
                return
            self._unproven.remove(channel)
            if number < self._newest.get(name, 0):  # a later connection was faster
                channel.close()
                return
            self._newest[name] = number
            superseded = [links[name] for links in (self._taken, self._waiting) if name in links]
            heartbeat = self._timeouts.peer_heartbeat if name.role == LAPTOP else None
            self._waiting[name] = Link(tls, name, self._timeouts, heartbeat)
            self._changed.notify_all()
        for link in superseded:
            link.close()

    def next_link(self, timeout: float, role: str = CONTROLLER) -> Link:
        """Return a new link to an end with this role, whose name is ``Link.peer``; raises ControllerGone after ``timeout`` seconds without one."""
        with self._changed:
            name = self._changed.wait_for(lambda: self._find(role), timeout)
            if name is None:
                raise ControllerGone(
                    f"No {role} connected to port {self.port} for {timeout:.0f} seconds: it ended, or the network or a firewall blocks it."
                )
            link = self._taken[name] = self._waiting.pop(name)
        return link

    def link_waits(self, role: str = CONTROLLER) -> bool:
        """Return whether :meth:`next_link` would return at once."""
        with self._changed:
            return self._find(role) is not None

    def _find(self, role: str) -> Name | None:
        return next((name for name in self._waiting if name.role == role), None)

    def close(self) -> None:
        """Stop listening, and close unauthenticated connections."""
        self._closed = True
        try:
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes accept()
        except OSError:
            pass
        self._socket.close()
        with self._changed:
            unproven = list(self._unproven)
            self._unproven.clear()
            waiting = list(self._waiting.values())
            self._waiting.clear()
        for channel in unproven:
            channel.close()
        for link in waiting:
            link.close()


def _listen_error(port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {port} is in use on this machine, by another transfer or another program (ss -ltnp shows which): end it, "
            "or set imaging_port to another port, or to 0 to let the kernel choose a free one."
        )
    return f"Can't listen on port {port}: {error.strerror}. Set imaging_port to a port that may be used, or to 0."
