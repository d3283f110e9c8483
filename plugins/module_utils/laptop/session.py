# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One transfer on a laptop: its credentials, its listener, its published state, and its links to the controller."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any, Callable

from ..run_file import CONNECTED, LISTENING, STARTING, WAITING, Run
from ..stream.conversation import PeerEnded, raise_end
from ..stream.credentials import LAPTOP, THE_CONTROLLER, Credentials, Name
from ..stream.link import Kind, Link, LinkError
from ..stream.listener import ControllerGone, Listener
from ..timeouts import Timeouts
from .job import remove_job, remove_uncollected
from .networks import own_networks
from .run_folder import RunFolder, clock, payload_folder, start_time


class Terminated(BaseException):
    """SIGTERM arrived: clean up and end. Not an Exception, so that no handler swallows it."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.facts: dict[str, Any] = {}
        """As of ImagingError."""


class Session:
    """Hands out links to the controller for as long as one comes back within the link timeout."""

    def __init__(
        self,
        run_id: str,
        device: str,
        credentials: Credentials,
        listen_on: tuple[str, int],
        timeouts: Timeouts,
        folder: RunFolder | None = None,
        relay: bool = False,
    ) -> None:
        """``listen_on``: address (empty: all) and port (0: the kernel chooses). ``relay``: other laptops of the run may connect, too."""
        self._address, port = listen_on
        self.timeouts = timeouts
        self._folder = folder or RunFolder(timeouts=timeouts)
        pid = os.getpid()
        self._run = Run(
            pid=pid,
            started=start_time(pid) or 0,
            port=port,
            state=STARTING,
            since=clock(),
            payload=payload_folder(),
            device=device,
            networks=own_networks(),
            run_id=run_id,
        )
        remove_uncollected(run_id, timeouts.link_timeout)
        self.notes = self._folder.enter(self._run)
        """Notes about earlier runs that were ended because they were in the way."""
        self.credentials = credentials
        self._relay = relay
        self.handlers: dict[Kind, Callable[[bytes], object]] = {}
        """The handlers (``Link.handlers``) of all links to the controller."""
        self._listener: Listener
        self.link: Link
        """The newest link to the controller; a conversation may use several."""
        self._last_heard: float | None = None
        self.links_made = 0
        self.last_use: Callable[[], float] = lambda: float("-inf")
        """Returns when another laptop last took anything from here (time.monotonic). Until the link timeout after that, no controller is needed."""
        self._publishing = threading.Lock()

    def publish(self, state: str) -> None:
        """Publish whether the controller is there."""
        with self._publishing:
            self._run.state, self._run.since = state, clock()
            self._folder.write(self._run)

    def converse(self, conversation: Callable[[Link], None]) -> None:
        """Run a conversation to its end, over as many links as necessary.

        Raises ControllerGone, PeerEnded, ImagingError when the port is taken, and the conversation's own errors, which the
        controller is told before.
        """
        self._listener = Listener(self._address, self._run.port, self.credentials, self.timeouts, self._expects)
        try:
            self._run.port = self._listener.port
            self.publish(LISTENING)
            while not self._converse_once(conversation):
                self.publish(WAITING)
        finally:
            self._listener.close()

    def _expects(self, name: Name) -> bool:
        return name == THE_CONTROLLER or (self._relay and name.role == LAPTOP)

    def next_peer(self, timeout: float) -> Link:
        """Return a new link that another laptop has made; raises ControllerGone after ``timeout`` seconds without one."""
        return self._listener.next_link(timeout, LAPTOP)

    def _converse_once(self, conversation: Callable[[Link], None]) -> bool:
        """Run the conversation over the next link; returns whether it came to its end."""
        link = self.next_link()
        try:
            conversation(link)
        except LinkError:
            self._last_heard = self.link.last_heard
            self.link.close()
            return False
        except PeerEnded:
            self.link.close()
            raise
        except BaseException as error:
            self.link.end(str(error) or type(error).__name__)
            raise
        return True

    def monitor(self, link: Link) -> LinkMonitor:
        """Return a monitor that listens to the controller during long work without conversation."""
        return LinkMonitor(self, link)

    def next_link(self) -> Link:
        """Return the controller's newest link; raises ControllerGone when none is made within the link timeout since the last sign of life."""
        silent = time.monotonic() - self._last_heard if self._last_heard is not None else 0.0
        link = self._wait_for_link(max(self.timeouts.min_return, self.patience - silent))
        link.handlers = self.handlers
        self.link = link
        self.links_made += 1
        self.publish(CONNECTED)
        return link

    def _wait_for_link(self, patience: float) -> Link:
        while True:
            try:
                return self._listener.next_link(patience)
            except ControllerGone:
                patience = self.patience - (time.monotonic() - self.last_use())
                if patience <= 0:
                    raise

    @property
    def link_waits(self) -> bool:
        """Whether :meth:`next_link` would return at once."""
        return self._listener.link_waits()

    @property
    def patience(self) -> float:
        """Seconds without a controller after which a run ends."""
        return self.timeouts.link_timeout

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_more: object) -> None:
        self._folder.remove(self._run.run_id)
        if kind is not None and self._run.state in (LISTENING, WAITING):
            remove_job(self._run.run_id)  # there is no controller to learn how it ended


class LinkMonitor:
    """Listens to the controller while only its END is expected, over as many links as it makes.

    The work goes on after a broken link, unless the controller is gone for longer than the link timeout.
    """

    def __init__(self, session: Session, link: Link) -> None:
        self._session = session
        self.link = link
        """The newest link."""
        self._broken_since: float | None = None

    def check(self) -> None:
        """Check the link; must be called regularly. Raises PeerEnded when the controller gave up, ControllerGone when it is gone."""
        try:
            if self._broken_since is None:
                message = self.link.poll()
                if message is not None:
                    raise_end(message)
        except LinkError:
            self._broken_since = self.link.last_heard
            self._session.publish(WAITING)
        if self._session.link_waits:
            self.link = self._session.next_link()
            self._broken_since = None
        elif self._broken_since is not None and time.monotonic() - self._broken_since > self._session.patience:
            raise ControllerGone(f"The controller has been gone for {self._session.patience:.0f} seconds.")


def arm_termination() -> None:
    """Turn SIGTERM into :class:`Terminated`, so that everything is cleaned up on the way out, and ignore SIGHUP."""

    def terminate(number: int, _frame: Any) -> None:
        raise Terminated(f"ended by signal {number}")

    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
