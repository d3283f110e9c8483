# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long both ends of a transfer wait for each other, and for the machines that they run on.

The controller makes one :class:`Timeouts` for each transfer. The ticket carries what differs from the defaults to the laptop, so both ends
always go by the same figures. :data:`ORDER` says which wait must outlast which.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Mapping

HEARTBEATS = 6
"""How often within its time of silence an end that has nothing to say says so. A few may be late."""

HEALTHY = 2
"""How many times its time of silence a link must last to count as well even when nothing got on: the laptop was mapping, say.

More than one, or a path that swallows large packets would look well for ever.
"""


@dataclass(frozen=True)
class Timeouts:
    """The figures, all in seconds. Fill it by keyword."""

    link_timeout: float = 120.0
    """Both ends give up after so long without a link. The user's ``imaging_link_timeout``: a switch that restarts takes a minute or two."""

    max_silence: float = 30.0
    """A link counts as broken after so long without a byte, at the most."""
    min_silence: float = 8.0
    """And at the least: a slow link's buffers may take that long to have room for more."""
    linger: float = 2.0
    """An end that gives up sends for so long, and then waits for so long, until the other one has heard of it: a few round trips."""
    handshake: float = 10.0
    """A handshake may take so long in all: three messages over the slowest link."""

    first_link: float = 30.0
    """A laptop whose module listens, but that was never reached, counts as unreachable then: what drops the packets drops them for ever."""
    connect: float = 10.0
    """An attempt to connect may take so long: TCP sends its request four times in that time."""
    min_connect: float = 2.0
    """The last attempt has so long, however little patience is left: TCP sends its request twice."""
    first_pause: float = 0.2
    """Between the first failure of a link and the next attempt; doubled each time."""
    max_pause: float = 5.0
    """Between two attempts, at the most."""
    shell_pause: float = 0.5
    """Between the first failure of Ansible's connection and the next attempt; doubled each time, up to ``max_pause``."""
    min_return: float = 1.0
    """A laptop listens for so long after its link broke, even when it had heard nothing for ``link_timeout`` before."""

    log_in: float = 60.0
    """OpenSSH may take so long to log in: somebody may have to touch a key."""
    last_words: float = 5.0
    """OpenSSH may take so long to say why it ends."""
    stuck: float = 30.0
    """paramiko's connection counts as broken after so long in which nothing could be sent."""
    program_end: float = 2.0
    """A program that carried a connection may take so long to end by itself."""
    local_program: float = 30.0
    """``ssh -G`` and ``ssh-keygen`` may take so long: the user's ``Match exec`` may ask the network."""

    poll: float = 0.2
    """Between two looks at what is about to be over."""
    port_first_pause: float = 0.05
    """Between the first two questions for the module's port; doubled each time."""
    port_max_pause: float = 1.0
    """Between two such questions, at the most: looking at a disk takes seconds, and each question is a command over SSH."""
    gone: float = 5.0
    """A module whose process is gone has no result any more after so long: async_wrapper stores it at once."""
    result: float = 60.0
    """A module that has said its last word must give its result within so long."""
    stop: float = 10.0
    """A module that the controller tells to end may take so long."""
    clean_up: float = 10.0
    """A connection that is lost just when all is done is tried again for so long, so that nothing is left on the laptop."""

    starting_grace: float = 110.0
    """A newer run does not end a module that never had a controller for so long: its controller may still be about to connect."""
    returning_grace: float = 10.0
    """A controller whose link broke is waited for so long by a newer run."""
    terminate: float = 10.0
    """A module that a newer run ends by SIGTERM may take so long, before it gets SIGKILL."""
    kill: float = 5.0
    """A killed process may take so long to be gone: a write to its disk may have to fail first."""
    settled: float = 20.0
    """A folder in which nothing was started, or that was not locked, for so long is nobody's: the owner does that right after making it."""

    held_disk: float = 10.0
    """A disk that another program holds, and udev, are waited for so long: udev takes a second on a slow machine."""
    release_pause: float = 0.1
    """Before a step that releases a disk is repeated. A loop device that was detached stays while another program has it open (losetup(8), -d)."""
    http_silence: float = 10.0
    """An HTTP server of images that has sent nothing for so long is asked no more."""
    http_busy: float = 60.0
    """A busy HTTP server with the image store that says when to ask again (Retry-After) is waited for so long in all, beyond ``http_silence``; by
    a laptop only while it opens the image, because it can have the rest from the controller."""
    peer_silence: float = 2.5
    """A laptop that takes chunks from another one leaves it after so long without a byte: all laptops below wait meanwhile."""
    peer_connect: float = 2.5
    """A laptop may take so long to connect to another one, and so long again for the handshake."""
    peer_named: float = 10.0
    """A laptop that has lost the one it takes chunks from takes them from the controller when it was told of no other one for so long. The
    controller answers at once, but its link to the laptop may have broken, too."""
    peer_idle: float = 30.0
    """A laptop leaves another one that has sent no chunk that it asked for for so long. The controller, which knows of all, usually has named
    a better one long before."""
    peer_farewell: float = 3.5
    """A laptop that is done passes on for so long what others have asked it for. Their worker need not wait longer for it than that."""

    @property
    def silence(self) -> float:
        """A link counts as broken after so long without a byte: half of what both ends wait, so that there is time to make it again."""
        return min(self.max_silence, max(self.min_silence, self.link_timeout / 2))

    @property
    def heartbeat(self) -> float:
        """An end that has nothing to say says so after so long."""
        return self.silence / HEARTBEATS

    @property
    def peer_heartbeat(self) -> float:
        """A laptop that has nothing to say to another one says so after so long."""
        return self.peer_silence / HEARTBEATS

    @property
    def between_laptops(self) -> Timeouts:
        """Those of a laptop that is connected to another one."""
        return replace(self, min_silence=self.peer_silence, max_silence=self.peer_silence, handshake=self.peer_connect)

    @property
    def healthy(self) -> float:
        """A link that lasted so long was a good one, even when nothing got on."""
        return HEALTHY * self.silence

    @property
    def first_patience(self) -> float:
        """The controller gives up after so long when it never had a link."""
        return min(self.first_link, self.link_timeout)

    @property
    def first_contact(self) -> float:
        """The longest time from when the module listens until its controller has a link or gives up.

        It learns the port, tries until its patience is over, and after a last pause makes one more attempt, in which OpenSSH may wait for a key.
        """
        last_attempt = max(self.min_connect, self.log_in) + self.handshake
        return self.port_max_pause + self.first_patience + self.max_pause + last_attempt

    @property
    def farewell(self) -> float:
        """An end that gives up may take so long to tell the other one."""
        return 2 * self.linger

    @property
    def first_attempt(self) -> float:
        """The first attempt to make a link may take so long."""
        return self.connect + self.handshake

    @property
    def port(self) -> float:
        """The controller waits so long for the module's port: for as long as the module may take to end an older one and to get its disk."""
        return max(self.link_timeout, self.returning_grace + self.terminate + self.kill + self.held_disk)

    @property
    def differing(self) -> dict[str, float]:
        """The figures that are not the defaults, by name, for :meth:`from_values`."""
        usual = asdict(DEFAULTS)
        return {name: value for name, value in asdict(self).items() if value != usual[name]}

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Timeouts:
        """The defaults, but for these. Raises ValueError for a name that there is not, and for what is no number of seconds."""
        names = {field.name for field in fields(cls)}
        for name, value in values.items():
            if name not in names:
                raise ValueError(f"there is no timeout {name!r}")
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
                raise ValueError(f"{name} must be a number of seconds above 0, and is {value!r}")
        return cls(**{name: float(value) for name, value in values.items()})

    def contradictions(self) -> list[str]:
        """Which of the rules of :data:`ORDER` these figures break, each in a sentence."""
        return [
            f"{shorter} ({getattr(self, shorter):g} s) must not be longer than {longer} ({getattr(self, longer):g} s): {why}."
            for shorter, longer, why in ORDER
            if getattr(self, shorter) > getattr(self, longer)
        ]


DEFAULTS = Timeouts()

ORDER = (
    ("min_silence", "max_silence", "a link has one time of silence"),
    ("healthy", "link_timeout", "a broken link must be noticed while there is time left to make it again"),
    ("min_connect", "connect", "the last attempt is shorter than the others"),
    ("first_pause", "max_pause", "pauses grow"),
    ("shell_pause", "max_pause", "pauses grow"),
    ("port_first_pause", "port_max_pause", "pauses grow"),
    ("first_attempt", "first_patience", "the first attempt must not use up the controller's patience"),
    ("max_pause", "returning_grace", "a newer run must not end a module whose controller is about to try again"),
    ("first_contact", "starting_grace", "a newer run must not end a module whose controller still tries to connect"),
    ("log_in", "link_timeout", "the laptop must still listen when somebody has touched the key"),
    ("silence", "stuck", "a slow connection is not a stuck one"),
    ("max_pause", "clean_up", "the connection must be tried once more before the laptop is left as it is"),
    ("farewell", "stop", "a module takes leave of its controller before it ends"),
    ("farewell", "terminate", "a module takes leave of its controller before it is killed"),
    ("gone", "result", "that a module is gone must be noticed before its result is given up"),
    (
        "peer_silence",
        "peer_farewell",
        "behind a silent laptop, the one before it must be found while it still passes on",
    ),
    ("peer_silence", "peer_idle", "a laptop that waits for others itself is not a dead one"),
    ("http_silence", "http_busy", "a server that says that it is busy is waited for longer than one that says nothing"),
    ("held_disk", "result", "a module may wait for its disk once more after its last word"),
)
"""Shorter, longer, and why: both are names of fields or properties of :class:`Timeouts`."""
