# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running a transfer: start the module on the laptop, make the link, converse, collect, and leave nothing behind.

The parts that differ (what is said on the link) are handed in as a conversation.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ansible_collections.fleet.imaging.plugins.module_utils.errors import ImagingError
from ansible_collections.fleet.imaging.plugins.module_utils.stream.conversation import PeerEnded
from ansible_collections.fleet.imaging.plugins.module_utils.stream.credentials import Credentials, Name
from ansible_collections.fleet.imaging.plugins.module_utils.stream.link import Link, LinkError
from ansible_collections.fleet.imaging.plugins.module_utils.stream.tls import connect_tls
from ansible_collections.fleet.imaging.plugins.module_utils.timeouts import Timeouts

from .detached_module import DetachedModule
from .progress.line import RECONNECTING
from .transports.transport import Refused, Transport, Unreachable

Conversation = Callable[[Link], None]


class Transfer:
    """One transfer to or from one laptop."""

    def __init__(
        self,
        module: DetachedModule,
        transport: Transport,
        credentials: Credentials,
        laptop: Name,
        timeouts: Timeouts,
        progress: Callable[[], int],
    ) -> None:
        """``credentials`` are the controller's. ``progress`` grows while the transfer gets on: as long as it does, a broken link is made again."""
        self._module = module
        self._transport = transport
        self._timeouts = timeouts
        self._heard = 0.0
        self._progress = progress
        self._connected = False
        self._reached = False
        """Whether the last attempt to make a link succeeded."""
        self._context = credentials.context(server_side=False)
        self._laptop = laptop
        self._failing_since: float | None = None
        self._listening = False
        self.port = 0
        """The port on which the laptop listens; 0 before that is known."""
        self.over = False
        """Whether all was said, and only the result is waited for."""
        self._failed = False
        """Whether the laptop gave up, and only what it says of that is waited for."""
        self.sent = 0
        self.links = 0
        self.began = time.monotonic()
        """When the first link was made."""

    def converse(self, conversation: Conversation, then_leave: bool = False) -> dict[str, Any]:
        """Hold the conversation to its end, over as many links as it takes, and return the module's result.

        With ``then_leave`` the module goes on after the conversation, and the result is empty unless it ends before. Raises ImagingError when the
        laptop stays out of reach, and what the conversation raises.
        """
        port = self._module.wait_for_port()
        if port is None:
            return self._module.collect(self._timeouts.result)
        self.port = port
        self._listening = True
        before, pause = -1, self._timeouts.first_pause
        while True:
            attempt = time.monotonic()
            failing_since = self._failing_since
            try:
                self._one_link(port, conversation, self._connect_time(attempt))
                self.over = True
                if then_leave:
                    return {}
                return self._module.collect(self._timeouts.result)
            except PeerEnded:
                self._failed = True
                return self._module.collect(self._timeouts.result)
            except LinkError as error:
                now = time.monotonic()
                if failing_since is None or self._progress() != before or now - attempt > self._timeouts.healthy:
                    failing_since, before = max(attempt, self._heard), self._progress()
                    self._failing_since, pause = failing_since, self._timeouts.first_pause
                # Ansible's own connection may be down as well: it is asked only when something answers there, and once.
                silent = isinstance(error, Unreachable) and not isinstance(error, Refused)
                if not self._reached and not silent and self._module.has_ended():
                    return self._module.collect(self._timeouts.result)
                if now - failing_since > self._patience:
                    raise self._give_up(error, now - failing_since) from error
                time.sleep(pause)
                pause = min(self._timeouts.max_pause, 2 * pause)

    @property
    def condition(self) -> str:
        """How the link stands; empty while it is connected."""
        if self.over:
            return "finishing"
        if self._failed:
            return "failed"
        if self._connected:
            return ""
        if not self._listening:
            return "starting"
        if not self.links or self._failing_since is None:
            return "connecting"
        return RECONNECTING

    @property
    def waited(self) -> str:
        """Of a link that is being made again, the seconds that it has been gone, of how many; else empty."""
        since = self._failing_since
        if self.condition != RECONNECTING or since is None:
            return ""
        return f"{min(time.monotonic() - since, self._patience):.0f}/{self._patience:.0f} s"

    @property
    def _patience(self) -> float:
        """Seconds without a link after which this end gives up."""
        return self._timeouts.link_timeout if self.links else self._timeouts.first_patience

    @property
    def networks(self) -> str:
        """The laptop's networks, as it says (``Run.networks``)."""
        return self._module.networks

    def _connect_time(self, now: float) -> float:
        """Seconds that an attempt to connect has, which begins now."""
        times, since = self._timeouts, self._failing_since
        rest = times.connect if since is None else since + self._patience - now
        return min(times.connect, max(times.min_connect, rest))

    def _give_up(self, error: LinkError, failing: float) -> ImagingError:
        codes = error.facts["codes"]
        if not self.links and isinstance(error, Unreachable):
            return ImagingError(f"{error} Nothing was transferred.", codes)
        if isinstance(error, Unreachable) and not isinstance(error, Refused):
            since = time.strftime("%H:%M", time.localtime(time.time() - failing))
            return ImagingError(
                f"The laptop at {self._transport.address} was connected before, and has not answered since {since}: it may be asleep, unplugged or "
                "switched off. Look at it, and run again for this laptop: the transfer goes on where it stopped.",
                codes,
            )
        return ImagingError(
            f"The link to {self._transport.address} could not be kept: for {failing:.0f} seconds nothing got through. The last failure: {error} "
            "Run again when the network works.",
            codes,
        )

    def _make_link(self, port: int, connect_time: float) -> Link:
        channel = self._transport.open(port, connect_time)
        try:
            tls = connect_tls(channel, self._context, self._laptop, self._timeouts.handshake)
            return Link(tls, self._laptop, self._timeouts)
        except BaseException:
            channel.close()
            raise

    def _one_link(self, port: int, conversation: Conversation, connect_time: float) -> None:
        self._reached = False
        link = self._make_link(port, connect_time)
        self._reached = self._connected = True
        if not self.links:
            self.began = time.monotonic()
        self.links += 1
        try:
            conversation(link)
        except LinkError:
            raise
        except BaseException as error:
            link.end(str(error) or type(error).__name__)
            raise
        finally:
            self._heard = link.last_heard
            self.sent += link.bytes_sent
            self._connected = False
            link.close()
