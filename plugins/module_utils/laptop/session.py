# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One transfer as a laptop sees it: the secret, the listener, the published state, and the controller that comes and goes."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any, Callable

from ..errors import ImagingError
from ..stream.conversation import PeerEnded, raise_end
from ..stream.link import Link, LinkError
from ..stream.listener import ControllerGone, Listener
from .run_folder import CONNECTED, LISTENING, STARTING, WAITING, Run, RunFolder, start_time


class Terminated(BaseException):
    """SIGTERM arrived: end, and clean up on the way. Not an Exception, so that nothing swallows it."""


class Session:
    """Hands out links to the controller for as long as one comes back within the link timeout."""

    def __init__(
        self, run_id: str, device: str, secret: bytes, port: int, link_timeout: float, folder: RunFolder | None = None
    ) -> None:
        self._link_timeout = link_timeout
        self._folder = folder or RunFolder()
        pid = os.getpid()
        self._run = Run(run_id, device, pid, start_time(pid) or 0, port, STARTING, time.time())
        self.notes = self._folder.enter(self._run)
        """What had to be ended to make room."""
        self._secret = secret
        self._listener: Listener
        self.links_made = 0

    def _publish(self, state: str) -> None:
        self._run.state, self._run.since = state, time.time()
        self._folder.write(self._run)

    def converse(self, conversation: Callable[[Link], None]) -> None:
        """Hold a conversation to its end, over as many links as it takes.

        Raises ControllerGone, PeerEnded, ImagingError when the port is taken, and the conversation's own errors, which the
        controller is told before.
        """
        self._listener = Listener("", self._run.port, self._secret)
        try:
            self._run.port = self._listener.port
            self._publish(LISTENING)
            while not self._converse_once(conversation):
                self._publish(WAITING)
        finally:
            self._listener.close()

    def _converse_once(self, conversation: Callable[[Link], None]) -> bool:
        """Whether the conversation came to its end on the next link."""
        link = self._listener.next_link(self._link_timeout)
        self.links_made += 1
        self._publish(CONNECTED)
        try:
            conversation(link)
        except LinkError:
            link.close()
            return False
        except PeerEnded:
            link.close()
            raise
        except BaseException as error:
            link.end(str(error) or type(error).__name__)
            raise
        return True

    def attend(self, link: Link) -> Callable[[], None]:
        """For long work without conversation: a check to call now and then, which raises PeerEnded when the controller gave up.

        A broken link is no reason to stop the work, unless no controller is there for the link timeout (ControllerGone).
        """
        return _Attendance(link, self._listener, self._link_timeout).check

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exception: object) -> None:
        self._folder.remove(self._run.run_id)


class _Attendance:
    """Listens to a link on which nothing but an END is expected."""

    def __init__(self, link: Link, listener: Listener, patience: float) -> None:
        self._link = link
        self._listener = listener
        self._patience = patience
        self._ended: ImagingError | None = None
        self._broken_since: float | None = None
        threading.Thread(target=self._listen, name="attendance", daemon=True).start()

    def _listen(self) -> None:
        try:
            raise_end(self._link.receive())
        except LinkError:
            self._broken_since = time.monotonic()
        except PeerEnded as error:
            self._ended = error

    def check(self) -> None:
        if self._ended is not None:
            raise self._ended
        if self._broken_since is None or self._listener.link_waits:
            return
        if time.monotonic() - self._broken_since > self._patience:
            raise ControllerGone(f"The controller has been gone for {self._patience:.0f} seconds.")


def arm_termination() -> None:
    """Turn SIGTERM and SIGHUP into :class:`Terminated`, so that everything on the way out is cleaned up."""

    def terminate(number: int, _frame: Any) -> None:
        raise Terminated(f"ended by signal {number}")

    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
